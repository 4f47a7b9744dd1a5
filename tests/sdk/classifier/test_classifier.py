"""A tuned model as its user meets it: answers, class sets, folders. Really trained, on digits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handwritten_digits import LABELS, PHRASES
from PIL import Image

import fewclip
from fewclip import decide
from fewclip.errors import (
    ArtifactError,
    BackboneError,
    ClassNameError,
    FormatVersionError,
    InputError,
    OptionError,
)


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.png"))


def test_adapting_makes_it_clearly_better_on_digits_it_has_not_seen(
    tuned: fewclip.Classifier, held_out: Path, zero_shot_accuracy: float
) -> None:
    after = tuned.evaluate(held_out)
    assert after.n == 60
    assert after.accuracy > 0.7
    assert after.accuracy > zero_shot_accuracy + 0.2


def test_predictions_are_ordered_probabilities(tuned: fewclip.Classifier, photos: Path) -> None:
    paths = pictures(photos)[:5]
    predictions = tuned.predict(paths, top_k=2)
    proba = tuned.predict_proba(paths)
    assert proba.shape == (5, 3)
    np.testing.assert_allclose(proba.sum(1), 1)
    for prediction, row in zip(predictions, proba, strict=True):
        assert prediction.label == LABELS[int(row.argmax())]
        assert prediction.score == pytest.approx(row.max())
        assert len(prediction.top) == 2
        assert prediction.top[0].score >= prediction.top[1].score


def test_embeddings_have_length_one(tuned: fewclip.Classifier, photos: Path) -> None:
    features = tuned.embed(pictures(photos)[:3])
    assert features.shape == (3, tuned.backbone.embed_dim)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def test_the_card_says_how_it_was_made(tuned: fewclip.Classifier) -> None:
    card = tuned.card
    assert card.classes == LABELS
    assert card.phrases == PHRASES
    assert card.method == "skip-tuning"
    assert card.options["image_lr"] == 0.01, "the bundled backbone brings its own"
    assert card.calibration.n == card.metrics["after"]["n"] == 18
    assert card.training["resumed_from_epochs"] == []
    assert len(card.training["losses"]) == 8
    assert card.data["train"] == dict.fromkeys(LABELS, 8)


def test_without_validation_images_the_card_says_uncalibrated(
    tuned_dept: fewclip.Classifier, photos: Path
) -> None:
    assert tuned_dept.card.to_dict()["calibration"]["calibrated"] is False
    assert tuned_dept.card.metrics == {}
    known = [p.known for p in tuned_dept.predict(pictures(photos))]
    assert sum(map(bool, known)) >= 0.85 * len(known)  # the threshold lets some 95 % pass


def test_classes_can_be_added_removed_and_renamed(tuned: fewclip.Classifier) -> None:
    more = tuned.add_classes(["sports_car", "dog"])
    assert more.classes == (*LABELS, "sports_car", "dog")
    assert more.card.phrases["sports_car"] == "sports car"
    assert tuned.classes == LABELS, "a classifier never changes"
    assert more.remove_classes(["sports_car", "dog"]).classes == LABELS
    renamed = tuned.rename_classes({"zero": "null"})
    assert renamed.classes == ("four", "one", "null")
    with pytest.raises(ClassNameError, match="already among"):
        tuned.add_classes(["zero"])
    with pytest.raises(ClassNameError, match="not among the classes: 'nine'"):
        tuned.remove_classes(["nine"])


def test_an_added_class_is_recognised_by_its_name(tuned: fewclip.Classifier) -> None:
    zebra = np.zeros((64, 64, 3), np.uint8)
    zebra[:, ::8] = 255
    scores = tuned.add_classes({"stripes": "stripes"}).predict_proba([zebra])
    assert scores.shape == (1, 4)
    assert scores[0, 3] > 0


def test_dept_answers_once_over_trained_and_added_classes(
    tuned_dept: fewclip.Classifier, photos: Path
) -> None:
    paths = pictures(photos)[::5]
    union = tuned_dept.add_classes(["dog", "bus"])
    itm, cat = union.logits(paths)
    assert cat is not None
    assert itm.shape[1] == 5
    assert cat.shape[1] == 3
    got = union.predict_proba(paths)
    q = np.exp(itm - itm.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    fused = 0.3 * itm[:, :3] + 0.7 * cat
    inside = np.exp(fused - fused.max(1, keepdims=True))
    inside /= inside.sum(1, keepdims=True)
    np.testing.assert_allclose(got[:, 3:], q[:, 3:], rtol=1e-5)
    np.testing.assert_allclose(got[:, :3], q[:, :3].sum(1, keepdims=True) * inside, rtol=1e-5)
    new = tuned_dept.with_classes(["dog", "bus"])
    itm, _ = new.logits(paths)
    q = np.exp(itm - itm.max(1, keepdims=True))
    np.testing.assert_allclose(new.predict_proba(paths), q / q.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("which", ["tuned", "tuned_dept"])
def test_saved_and_loaded_it_answers_the_same(
    which: str, photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    clf = request.getfixturevalue(which).add_classes(["dog"])
    clf.save(tmp_path / "pets")
    again = fewclip.load(tmp_path / "pets")
    paths = pictures(photos)[::3]
    assert again.classes == clf.classes
    np.testing.assert_array_equal(again.predict_proba(paths), clf.predict_proba(paths))
    assert [p.known for p in again.predict(paths)] == [p.known for p in clf.predict(paths)]
    assert {f.name for f in (tmp_path / "pets").iterdir()} == {
        "card.json",
        "model.safetensors",
        "README.md",
    }
    readme = (tmp_path / "pets" / "README.md").read_text("utf-8")
    assert readme.startswith("---\nlibrary_name: fewclip")
    assert "pets" in readme


def test_a_zero_shot_model_can_be_saved_too(photos: Path, tmp_path: Path) -> None:
    clf = fewclip.zero_shot(["cat", "dog"])
    clf.save(tmp_path / "z")
    again = fewclip.load(tmp_path / "z")
    paths = pictures(photos)[:3]
    np.testing.assert_array_equal(again.predict_proba(paths), clf.predict_proba(paths))


def test_an_existing_folder_is_not_overwritten_unasked(
    tuned: fewclip.Classifier, tmp_path: Path
) -> None:
    tuned.save(tmp_path / "m")
    with pytest.raises(InputError, match="overwrite"):
        tuned.save(tmp_path / "m")
    tuned.save(tmp_path / "m", overwrite=True)


def test_a_tampered_folder_is_refused(tuned: fewclip.Classifier, tmp_path: Path) -> None:
    tuned.save(tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        fewclip.load(tmp_path / "m")


def test_an_unknown_format_version_is_refused(tuned: fewclip.Classifier, tmp_path: Path) -> None:
    tuned.save(tmp_path / "m")
    card = json.loads((tmp_path / "m" / "card.json").read_text("utf-8"))
    card["format_version"] = 99
    (tmp_path / "m" / "card.json").write_text(json.dumps(card), "utf-8")
    with pytest.raises(FormatVersionError, match="99"):
        fewclip.load(tmp_path / "m")


def test_a_model_whose_backbone_changed_is_refused(tmp_path: Path) -> None:
    import open_clip.model
    from safetensors.torch import load_file, save_file

    from fewclip.backbone.loading import MICRO

    assert open_clip.model
    folder = tmp_path / "backbone"
    shutil.copytree(MICRO, folder)
    fewclip.zero_shot(["cat"], backbone=folder).save(tmp_path / "m")
    assert fewclip.load(tmp_path / "m").classes == ("cat",)
    file = folder / "open_clip_model.safetensors"
    state = load_file(file)
    state["visual.proj"] = state["visual.proj"] + 1
    save_file(state, file)
    with pytest.raises(BackboneError, match="another version"):
        fewclip.load(tmp_path / "m")


def test_the_unknown_threshold_decides_what_is_known(
    tuned: fewclip.Classifier, photos: Path
) -> None:
    paths = pictures(photos)[:4]
    itm, cat, ood_score, named_bound = tuned.model_outputs(paths)
    head, calibration = tuned.card.head, tuned.card.calibration
    assert ood_score is not None
    scores = decide.in_distribution_score(itm, cat, head, calibration, ood_score, named_bound)
    intermediate = float(np.sort(scores)[1:3].mean())
    known = [p.known for p in tuned.set_unknown_threshold(intermediate).predict(paths)]
    assert known == list(scores >= intermediate)
    assert known.count(True) == 2
    assert all(p.known for p in tuned.set_unknown_threshold(None).predict(paths))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"method": "magic"}, OptionError, "skip-tuning"),
        ({"template": "a photo"}, OptionError, "exactly one"),
        ({"omega_": 3}, OptionError, "omega_"),
        ({"method": "skip-tuning", "omega": 8}, OptionError, "8 .*blocks"),
        ({"lam": -1}, OptionError, "lam"),
        ({"epochs": 0}, OptionError, "epochs"),
        ({"seed": -1}, OptionError, "seed"),
        ({"device": "tpu9"}, OptionError, "tpu9"),
        ({"backbone": "RN50/openai"}, BackboneError, "not in the local cache"),
        ({"backbone": "no-such"}, BackboneError, "micro"),
        ({"method": "kgcoop", "dept_weight": 0.5}, OptionError, "dept_weight"),
        ({"method": "dept", "dept_weight": 2}, OptionError, "dept_weight"),
        ({"classes": {"zero": "very " * 40}}, InputError, "very"),
    ],
)
def test_wrong_input_is_refused_in_words(
    arguments: dict[str, Any], error: type[Exception], says: str, photos: Path
) -> None:
    with pytest.raises(error, match=says):
        fewclip.adapt(photos, shots=2, progress=False, **arguments)


def test_it_warns_when_adapting_made_things_worse(photos: Path, tmp_path: Path) -> None:
    """Validation labels are what zero-shot says: all right before, so training can only lose."""
    paths = pictures(photos)
    answers = fewclip.zero_shot(PHRASES).predict(paths)
    for path, answer in zip(paths, answers, strict=True):
        (tmp_path / answer.label).mkdir(exist_ok=True)
        copy = Image.open(path).rotate(3)
        copy.save(tmp_path / answer.label / f"{path.parent.name}-{path.name}")
    with pytest.warns(UserWarning, match="made things worse"):
        fewclip.adapt(
            photos,
            method="skip-tuning",
            val=tmp_path,
            shots=4,
            epochs=4,
            progress=False,
            classes=PHRASES,
        )
