"""gda and linear-probe from images to answers: saved, loaded, exported, with classes by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from handwritten_digits import PHRASES

import fewclip
from fewclip.heads import head_features
from fewclip.preprocess import preprocess
from fewclip.runtime import OnnxClassifier

HEADS = ["gda", "linear-probe"]


@pytest.fixture(scope="module", params=HEADS)
def fitted(request: pytest.FixtureRequest, photos: Path) -> fewclip.Classifier:
    return fewclip.adapt(
        photos,
        method=request.param,
        shots=8,
        val=0,
        classes=PHRASES,
        device="cpu",
        progress=False,
    )


def test_it_learns_and_is_calibrated_without_images_kept_out(
    fitted: fewclip.Classifier, held_out: Path, zero_shot_accuracy: float
) -> None:
    assert fitted.evaluate(held_out).accuracy > zero_shot_accuracy + 0.2
    card = fitted.card
    assert card.calibration.n == card.metrics["out_of_fold"]["n"] == 24
    assert card.head.dept_weight is not None
    assert card.conformal is not None
    assert card.conformal.kind == "cross"


def test_it_comes_back_from_its_folder(
    fitted: fewclip.Classifier, held_out: Path, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "m")
    again = fewclip.load(tmp_path / "m", device="cpu")
    images = sorted(held_out.glob("*/*"))[::6]
    assert again.predict(images) == fitted.predict(images)
    again.save(tmp_path / "n")
    assert fewclip.load(tmp_path / "n", device="cpu").predict(images) == fitted.predict(images)


def test_new_classes_are_zero_shots(fitted: fewclip.Classifier, held_out: Path) -> None:
    names = {"a": "a cat", "b": "a teapot"}
    images = sorted(held_out.glob("*/*"))[::10]
    ours = fitted.with_classes(names).logits(images)[0]
    np.testing.assert_allclose(ours, fewclip.zero_shot(names).logits(images)[0], atol=1e-4)


def test_torch_joins_features_as_numpy_does(fitted: fewclip.Classifier, held_out: Path) -> None:
    images = sorted(held_out.glob("*/*"))[::10]
    pixels = torch.from_numpy(preprocess(images, fitted.card.preprocessing))
    with torch.inference_mode():
        features, intermediate = fitted.method.features_and_intermediate(pixels)
        assert intermediate is not None
        found = fitted.method.cat_logits(features, intermediate)
    assert found is not None
    state = {name: value.numpy() for name, value in fitted.method.state().items()}
    joined = head_features(features.numpy(), intermediate.numpy())
    wanted = joined @ state["head.weight"].T + state["head.bias"]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_export_answers_alike(photos: Path, held_out: Path, tmp_path: Path) -> None:
    clf = fewclip.adapt(photos, method="gda", shots=8, device="cpu", progress=False)
    clf.export_onnx(tmp_path / "onnx")
    images = sorted(held_out.glob("*/*"))[::6]
    exported = OnnxClassifier(tmp_path / "onnx", "cpu")
    np.testing.assert_allclose(exported.predict_proba(images), clf.predict_proba(images), atol=1e-4)
    assert [p.known for p in exported.predict(images)] == [p.known for p in clf.predict(images)]


def test_a_weight_that_is_given_is_kept(photos: Path) -> None:
    clf = fewclip.adapt(
        photos, method="gda", shots=4, val=0, dept_weight=0.25, device="cpu", progress=False
    )
    assert clf.card.head.dept_weight == 0.25
