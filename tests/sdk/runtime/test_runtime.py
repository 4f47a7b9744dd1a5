"""The exported model answers as the trained one does, without torch. Real graphs, real digits."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exports import exported_model, ood_images, saved_model
from handwritten_digits import LABELS, write_digits

import fewclip
from fewclip.artifact import read_card, write_folder
from fewclip.contract import CARD_FILE, Card
from fewclip.errors import (
    ArtifactError,
    ClassNameError,
    FormatVersionError,
    ImageError,
    OptionError,
)
from fewclip.runtime import OnnxClassifier

BATCH = OnnxClassifier.batch_size


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory)


@pytest.fixture(scope="module")
def trained(saved: Path) -> fewclip.Classifier:
    return fewclip.load(saved, device="cpu")


@pytest.fixture(scope="module")
def served(folder: Path) -> OnnxClassifier:
    return OnnxClassifier(folder)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits that no one has seen."""
    return write_digits(tmp_path_factory.mktemp("unseen") / "digits", 150, 10)


@pytest.fixture(scope="module")
def images(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """More than one batch of the runtime: digits and ood_images."""
    unseen = [str(path) for path in sorted(digits.glob("*/*.png"))]
    return [*unseen, *ood_images(tmp_path_factory.mktemp("ood_images"), BATCH - 25)]


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    """The same labels in the same order, the same word on `known`, the same scores but rounding."""
    assert len(ours) == len(theirs)
    for one, two in zip(ours, theirs, strict=True):
        assert (one.label, one.known) == (two.label, two.known)
        assert [entry.label for entry in one.top] == [entry.label for entry in two.top]
        np.testing.assert_allclose(
            [entry.score for entry in one.top], [entry.score for entry in two.top], atol=1e-4
        )


# ---- the same answers ------------------------------------------------------------------------


def test_it_answers_as_the_trained_model(
    trained: fewclip.Classifier, served: OnnxClassifier, images: list[str]
) -> None:
    ours = trained.predict(images)
    assert_same(ours, served.predict(images))
    assert {answer.known for answer in ours} == {True, False}, "the test should see both"


def test_logits_probabilities_and_embeddings(
    trained: fewclip.Classifier, served: OnnxClassifier, images: list[str]
) -> None:
    itm, cat = served.logits(images)
    assert cat is not None
    assert itm.shape == cat.shape == (len(images), 3)
    assert itm.dtype == cat.dtype == np.float32
    own_itm, own_cat = trained.logits(images)
    assert own_cat is not None
    np.testing.assert_allclose(itm, own_itm, atol=1e-3)
    np.testing.assert_allclose(cat, own_cat, atol=1e-3)
    np.testing.assert_allclose(served.embed(images), trained.embed(images), atol=1e-5)
    proba = served.predict_proba(images)
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba, trained.predict_proba(images), atol=1e-4)


def test_any_number_of_images(served: OnnxClassifier, images: list[str]) -> None:
    assert len(images) > BATCH
    expected = served.predict(images)
    for n in (0, 1, 2, 7, BATCH, BATCH + 1):
        assert_same(served.predict(images[:n]), expected[:n])
    assert served.logits([])[0].shape == (0, 3)
    assert served.embed([]).shape == (0, 256)


def test_preprocessed_arrays_are_taken_as_they_are(
    served: OnnxClassifier, images: list[str]
) -> None:
    from fewclip.preprocess import preprocess

    pixels = preprocess(images, served.card.preprocessing)
    assert_same(served.answer(served.model_outputs(pixels)), served.predict(images))


def test_evaluating_gives_the_same_report(
    trained: fewclip.Classifier, served: OnnxClassifier, digits: Path
) -> None:
    ours, theirs = trained.evaluate(digits), served.evaluate(digits)
    assert theirs.confusion == ours.confusion
    assert theirs.ece == pytest.approx(ours.ece, abs=1e-3)


def test_many_threads_at_once(served: OnnxClassifier, images: list[str]) -> None:
    images = images[::10]
    expected = served.predict(images)
    more = served.add_classes(["teapot"]).predict(images)
    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(lambda _: served.predict(images), range(8)):
            assert_same(answers, expected)
        jobs = pool.map(lambda _: served.add_classes(["teapot"]).predict(images), range(8))
        for answers in jobs:
            assert_same(answers, more)


def test_an_unreadable_image_is_named(
    served: OnnxClassifier, images: list[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(images[0]).read_bytes()[:60])
    with pytest.raises(ImageError, match=r"broken\.png"):
        served.predict([*images, str(broken)])
    with pytest.raises(OptionError, match="top_k"):
        served.predict(images, top_k=0)


# ---- the class set ---------------------------------------------------------------------------

EDITS: dict[str, Callable[[Any], Any]] = {
    "add": lambda m: m.add_classes(["zebra", "traffic light"]),
    "add with a phrase": lambda m: m.add_classes({"seven": "handwritten digit seven"}),
    "exactly these": lambda m: m.with_classes(["zero", "zebra", "four"]),
    "another phrase": lambda m: m.with_classes({"zero": "a ring", "one": "handwritten digit one"}),
    "new ones alone": lambda m: m.with_classes(["zebra", "café", "犬"]),
    "one alone": lambda m: m.with_classes(["zero"]),
    "remove": lambda m: m.remove_classes(["one"]),
    "remove and bring back": lambda m: m.remove_classes(["one"]).with_classes(LABELS),
    "remove and add again": lambda m: m.remove_classes("one").add_classes(["zebra", "one"]),
    "rename": lambda m: m.rename_classes({"zero": "null"}).add_classes(["zebra"]),
    "threshold": lambda m: m.set_unknown_threshold(0.0),
    "no threshold": lambda m: m.set_unknown_threshold(None),
}


@pytest.mark.parametrize("edit", EDITS)
def test_the_class_set_changes_as_the_trained_models_does(
    trained: fewclip.Classifier, served: OnnxClassifier, images: list[str], edit: str
) -> None:
    images = images[::3]
    ours, theirs = EDITS[edit](trained), EDITS[edit](served)
    assert theirs.classes == ours.classes
    assert theirs.card.head == ours.card.head
    np.testing.assert_allclose(theirs.logits(images)[0], ours.logits(images)[0], atol=1e-3)
    assert_same(ours.predict(images), theirs.predict(images))
    assert served.classes == LABELS, "the first one must not change"


def test_names_that_cannot_be_are_refused(served: OnnxClassifier) -> None:
    with pytest.raises(ClassNameError, match="already"):
        served.add_classes(["zero"])
    with pytest.raises(ClassNameError, match="twice"):
        served.with_classes(["a", "a"])
    with pytest.raises(ClassNameError, match="tokens"):
        served.add_classes(["a very " + "long " * 40 + "name"])
    with pytest.raises(ClassNameError, match="not among"):
        served.remove_classes(["dragon"])


def test_text_features_have_length_one(served: OnnxClassifier) -> None:
    features = served.text_features(["zebra", "teapot", "zebra"])
    assert features.shape == (3, 256)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(features[0], features[2])


# ---- the folder ------------------------------------------------------------------------------


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def rewritten(folder: Path, change: Callable[[Path], object], card: Card | None = None) -> None:
    """The folder with other content and hashes that fit, as a rival or an attacker would write."""

    def fill(place: Path) -> Card:
        for file in folder.iterdir():
            if file.name != CARD_FILE:
                shutil.copy(file, place)
        change(place)
        return card or read_card(folder)

    write_folder(folder, fill, overwrite=True)


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx", "tokenizer.json"])
def test_a_changed_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} was changed"):
        OnnxClassifier(copy)


def test_what_is_no_export_is_refused(copy: Path, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="saved model"):
        OnnxClassifier(saved)
    with pytest.raises(ArtifactError, match="does not exist"):
        OnnxClassifier(tmp_path / "nothing")
    plain = json.loads((copy / CARD_FILE).read_text("utf-8"))
    (copy / CARD_FILE).write_text(json.dumps({**plain, "format_version": 99}))
    with pytest.raises(FormatVersionError, match="99"):
        OnnxClassifier(copy)


def test_a_graph_that_onnx_runtime_cannot_open_is_refused(copy: Path) -> None:
    rewritten(copy, lambda place: (place / "image.onnx").write_bytes(b"no graph"))
    with pytest.raises(ArtifactError, match=r"cannot open .*image\.onnx"):
        OnnxClassifier(copy)


def without_metadata(place: Path) -> None:
    model = onnx.load(place / "image.onnx")
    del model.metadata_props[:]
    onnx.save(model, place / "image.onnx")


def test_a_graph_of_others_is_refused(copy: Path) -> None:
    rewritten(copy, without_metadata)
    with pytest.raises(ArtifactError, match="not exported by fewclip"):
        OnnxClassifier(copy)


def test_a_graph_with_other_classes_than_the_card_is_refused(copy: Path) -> None:
    card = dataclasses.replace(read_card(copy), classes=("one", "four", "zero"))
    rewritten(copy, lambda place: None, card)
    with pytest.raises(ArtifactError, match="other classes"):
        OnnxClassifier(copy)


def test_a_folder_replaced_after_opening_does_not_mix(copy: Path, images: list[str]) -> None:
    """What is open goes on; a name that needs the old text graph is refused, not answered wrong."""
    images = images[::5]
    opened = OnnxClassifier(copy)
    expected = opened.predict(images)
    warm = OnnxClassifier(copy)
    named = warm.add_classes(["zebra"])
    rewritten(copy, lambda place: (place / "text.onnx").write_bytes(b"another"))
    assert_same(opened.predict(images), expected)
    with pytest.raises(ArtifactError, match="replaced since it was opened"):
        opened.add_classes(["zebra"])
    assert_same(warm.add_classes(["zebra"]).predict(images), named.predict(images))


# ---- without torch -------------------------------------------------------------------------

TORCH_FREE = """
import sys
for name in ("torch", "open_clip", "torchvision", "safetensors", "onnx"):
    sys.modules[name] = None
from fewclip.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("verb", ["predict", "evaluate", "info"])
def test_the_command_line_needs_no_torch(
    folder: Path, digits: Path, trained: fewclip.Classifier, verb: str
) -> None:
    words = {"predict": [str(digits)], "evaluate": [str(digits)], "info": []}[verb]
    done = subprocess.run(
        [sys.executable, "-c", TORCH_FREE, verb, str(folder), *words, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if verb == "predict":
        ours = trained.predict([row["image"] for row in said])
        assert [row["label"] for row in said] == [answer.label for answer in ours]
        assert len(said) == 30
    elif verb == "evaluate":
        assert said["n"] == 30
        assert said["accuracy"] == pytest.approx(trained.evaluate(digits).accuracy)
    else:
        assert said["kind"] == "onnx"
        assert said["classes"] == list(LABELS)


def test_new_classes_need_no_torch_either(folder: Path, images: list[str]) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'open_clip', 'onnx'): sys.modules[name] = None\n"
        "from fewclip.runtime import OnnxClassifier\n"
        "model = OnnxClassifier(sys.argv[1]).with_classes(['zebra', 'zero'])\n"
        "print(model.predict(sys.argv[2])[0].label)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), images[0]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in {"zebra", "zero"}
