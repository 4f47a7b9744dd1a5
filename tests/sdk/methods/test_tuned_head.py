"""skip-tuning+gda: its head is weighed by towers that have not seen the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handwritten_digits import PHRASES

import fewclip
from fewclip.heads import AnyMatrix, FeatureSample, FoldOutputs, fit_gda, fit_on_folds
from fewclip.heads.linear import Head, Ints
from fewclip.model_folder.readme import model_card
from fewclip.runtime import OnnxClassifier
from fewclip.training import Progress

QUICK: dict[str, Any] = {
    "method": "skip-tuning+gda",
    "shots": 4,
    "epochs": 1,
    "val": 0,
    "classes": PHRASES,
    "device": "cpu",
    "progress": False,
}


@pytest.fixture(scope="module")
def fitted(photos: Path) -> fewclip.Classifier:
    return fewclip.adapt(photos, **QUICK)


def test_every_image_is_answered_by_a_tower_that_has_not_seen_it(
    fitted: fewclip.Classifier, held_out: Path, zero_shot_accuracy: float
) -> None:
    card = fitted.card
    assert card.calibration.n == card.metrics["out_of_fold"]["n"] == 12
    assert card.conformal is not None
    assert card.conformal.kind == "cross"
    assert card.calibration.threshold is not None
    assert "its 12 training images, each answered by a model" in model_card(card)
    assert fitted.evaluate(held_out).accuracy > zero_shot_accuracy + 0.2


def test_it_comes_back_from_its_folder(
    fitted: fewclip.Classifier, held_out: Path, tmp_path: Path
) -> None:
    images = sorted(held_out.glob("*/*"))[::6]
    fitted.save(tmp_path / "m")
    assert fewclip.load(tmp_path / "m", device="cpu").predict(images) == fitted.predict(images)


@pytest.mark.slow
def test_the_export_answers_alike(
    fitted: fewclip.Classifier, held_out: Path, tmp_path: Path
) -> None:
    fitted.export_onnx(tmp_path / "onnx")
    images = sorted(held_out.glob("*/*"))[::6]
    exported = OnnxClassifier(tmp_path / "onnx", "cpu")
    np.testing.assert_allclose(
        exported.predict_proba(images), fitted.predict_proba(images), atol=1e-4
    )
    assert [p.known for p in exported.predict(images)] == [p.known for p in fitted.predict(images)]


def test_new_classes_are_the_tuned_texts(fitted: fewclip.Classifier, held_out: Path) -> None:
    images, names = sorted(held_out.glob("*/*"))[::10], {"a": "a cat", "b": "a teapot"}
    itm, _ = fitted.with_classes(names).logits(images)
    assert itm.shape == (6, 2)
    assert not np.allclose(itm, fewclip.zero_shot(names).logits(images)[0])


@pytest.mark.slow
def test_a_run_stopped_while_the_head_is_weighed_ends_the_same(
    photos: Path, tmp_path: Path
) -> None:
    given = {**QUICK, "shots": 2}  # 1 step, then 1 for each of two folds
    seen: list[Progress] = []
    kept = tmp_path / "c"
    with pytest.raises(fewclip.StoppedError) as stopped:
        fewclip.adapt(
            photos,
            **{**given, "progress": seen.append},
            checkpoint=kept,
            stop=lambda: len(seen) == 2,
        )
    assert stopped.value.checkpoint == str(kept)
    assert (kept / "part-0").is_dir()
    rest: list[Progress] = []
    again = fewclip.adapt(photos, **{**given, "progress": rest.append}, checkpoint=kept)
    assert [at.seconds_left > 0 for at in (*seen, *rest)] == [True, True, False]  # of all together
    images = sorted(photos.glob("*/*"))[::6]
    assert again.predict(images) == fewclip.adapt(photos, **given).predict(images)


def sample_and_folds(useful: bool) -> tuple[FeatureSample, list[FoldOutputs]]:
    """A tower that has pulled its 24 images together; what its heads are worth on other images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 8)
    apart = np.eye(3)[labels] + 0.01 * rng.standard_normal((24, 3))
    itm = rng.standard_normal((24, 3)).astype(np.float32)
    itm[np.arange(24), labels] += 2
    sample = FeatureSample(apart.astype(np.float32), None, labels, itm)
    heads = (3 * np.eye(3)[labels] if useful else rng.standard_normal((24, 3))).astype(np.float32)
    parts = np.array_split(rng.permutation(24), 4)
    return sample, [FoldOutputs(part, labels[part], itm[part], [heads[part]]) for part in parts]


def fit(rows: AnyMatrix, labels: Ints, images: Ints) -> list[Head]:
    return [fit_gda(rows, labels, images, 3)]


def test_the_weight_is_what_the_head_is_worth_on_images_not_seen() -> None:
    (sample, good), (_, bad) = sample_and_folds(useful=True), sample_and_folds(useful=False)
    trusted, doubted = fit_on_folds(sample, good, fit), fit_on_folds(sample, bad, fit)
    assert trusted.weight > 0.7
    assert doubted.weight < 0.4
    assert sorted(trusted.out_of_fold.images) == list(range(24))
    assert fit_on_folds(sample, good, fit, weight=0.25).weight == 0.25


def test_without_folds_text_and_head_have_half_each() -> None:
    sample, _ = sample_and_folds(useful=True)
    fitted = fit_on_folds(sample, [], fit)
    assert fitted.weight == 0.5
    assert fitted.logits_out_of_fold().shape == (0, 3)
