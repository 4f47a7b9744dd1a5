"""Both kinds of classifier take the same images and refuse the same ones, with typed errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import exported_model, saved_model
from handwritten_digits import write_digits
from PIL import Image

import fewclip
from fewclip.base import BaseClassifier
from fewclip.errors import ImageError, OptionError
from fewclip.preprocess import preprocess
from fewclip.runtime import OnnxClassifier

OPEN: dict[str, Callable[[pytest.TempPathFactory], BaseClassifier]] = {
    "torch": lambda factory: fewclip.load(saved_model(factory), device="cpu"),
    "onnx": lambda factory: OnnxClassifier(exported_model(factory), "cpu"),
}


@pytest.fixture(scope="module", params=OPEN)
def classifier(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> BaseClassifier:
    return OPEN[request.param](tmp_path_factory)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = write_digits(tmp_path_factory.mktemp("base") / "digits", 170, 1)
    return sorted(folder.glob("*/*.png"))


def pixels(paths: list[Path]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def test_images_may_come_in_any_form(classifier: BaseClassifier, paths: list[Path]) -> None:
    expected = classifier.predict_proba(paths)
    forms: list[Any] = [
        tuple(map(str, paths)),
        [path.read_bytes() for path in paths],
        [Image.open(path) for path in paths],
        list(pixels(paths)),
        pixels(paths),
        pixels(paths)[:, ::-1][:, ::-1],  # not contiguous
        preprocess(paths, classifier.card.preprocessing),
    ]
    for form in forms:
        np.testing.assert_array_equal(classifier.predict_proba(form), expected)
        assert classifier.embed(form).shape == (len(paths), 256)
    mixed = [str(paths[0]), paths[1].read_bytes(), pixels(paths)[2]]
    np.testing.assert_array_equal(classifier.predict_proba(mixed), expected)
    for one in (paths[0], paths[0].read_bytes(), pixels(paths)[0]):
        np.testing.assert_allclose(classifier.predict_proba(one), expected[:1], rtol=1e-4)


def test_no_images_are_no_answers(classifier: BaseClassifier) -> None:
    size = classifier.card.preprocessing.size
    arrays = np.zeros((0, 5, 5, 3), np.uint8), np.zeros((0, 3, size, size), np.float32)
    forms: list[Any] = [[], (), *arrays]
    for form in forms:
        assert classifier.predict(form) == []
        assert classifier.predict_proba(form).shape == (0, 3)
        assert classifier.embed(form).shape == (0, 256)


NO_IMAGES: dict[str, Any] = {
    "None": None,
    "a number": 3,
    "a list with None": [None],
    "a list of numbers": [1, 2],
    "a dictionary": {"a": "b.png"},
    "a set": {"a.png"},
    "bytearray": bytearray(b"x"),
    "no text": "",
    "no bytes": b"",
    "a path that is not there": "nowhere.png",
    "a folder": ".",
    "wrong size": np.zeros((2, 3, 7, 7), np.float32),
    "channels last": np.zeros((2, 64, 64, 3), np.float32),
    "float64": np.zeros((2, 3, 224, 224)),
    "one preprocessed image": np.zeros((3, 64, 64), np.float32),
    "grey": np.zeros((8, 8), np.uint8),
    "channels first": np.zeros((2, 3, 8, 8), np.uint8),
    "no pixels": np.zeros((1, 0, 0, 3), np.uint8),
    "five axes": np.zeros((1, 1, 8, 8, 3), np.uint8),
    "objects": np.array([None, 3], dtype=object),
    "an array of nothing": np.array(3),
}


@pytest.mark.parametrize("what", NO_IMAGES)
def test_what_is_no_image_is_refused(classifier: BaseClassifier, what: str) -> None:
    for ask in (classifier.predict, classifier.predict_proba, classifier.logits, classifier.embed):
        with pytest.raises(ImageError):
            ask(NO_IMAGES[what])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_float_batch_must_be_finite(classifier: BaseClassifier, value: float) -> None:
    size = classifier.card.preprocessing.size
    batch = np.zeros((2, 3, size, size), np.float32)
    batch[1, 2, 3, 4] = value
    with pytest.raises(ImageError, match="NaN or infinity"):
        classifier.predict(batch)


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "2", None, True])
def test_top_k_is_checked_before_any_image_is_read(classifier: BaseClassifier, top_k: Any) -> None:
    with pytest.raises(OptionError, match="top_k"):
        classifier.predict("nowhere.png", top_k=top_k)


def test_top_k_may_be_numpys_or_more_than_there_are(
    classifier: BaseClassifier, paths: list[Path]
) -> None:
    assert len(classifier.predict(paths, top_k=np.int64(2))[0].top) == 2  # type: ignore[arg-type]
    assert len(classifier.predict(paths, top_k=99)[0].top) == 3


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), "high", True])
def test_the_unknown_threshold_is_a_number(classifier: BaseClassifier, threshold: Any) -> None:
    with pytest.raises(OptionError, match="threshold"):
        classifier.set_unknown_threshold(threshold)


def test_an_edited_classifier_is_of_the_same_kind(classifier: BaseClassifier) -> None:
    edited = classifier.add_classes(["zebra"]).set_unknown_threshold(None)
    assert type(edited) is type(classifier)
    assert edited.classes == (*classifier.classes, "zebra")
