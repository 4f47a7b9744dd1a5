"""Exports give intermediate features out, and `known` the same on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from exports import exported_model, saved_model
from PIL import Image

import fewclip
from fewclip.runtime import OnnxClassifier
from fewclip.samples import digits, surfaces


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> fewclip.Classifier:
    return fewclip.load(saved_model(tmp_path_factory), device="cpu")


SLOW = [pytest.param(precision, marks=pytest.mark.slow) for precision in ("fp16", "int8")]


@pytest.fixture(scope="module", params=["fp32", *SLOW])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory, request.param)


def test_it_is_one_more_output_after_those_that_every_export_has(folder: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        str(folder / "image.onnx"), options, providers=["CPUExecutionProvider"]
    )
    found = {o.name: (o.type, o.shape) for o in session.get_outputs()}
    assert list(found) == ["features", "logits_itm", "logits_cat", "intermediate"]
    assert found["intermediate"] == ("tensor(float)", ["batch", 5 * 192])
    pixels = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    (middle,) = session.run(["intermediate"], {"image": pixels})
    np.testing.assert_allclose(np.linalg.norm(middle, axis=1), 1, atol=1e-5)


def test_known_means_the_same_on_both_sides(folder: Path, trained: fewclip.Classifier) -> None:
    images = [digits.draw("zero", 50 + i) for i in range(6)]
    images += [surfaces.draw("whole", i) for i in range(6)]
    exported = OnnxClassifier(folder, "cpu")
    ours, theirs = trained.model_outputs(images), exported.model_outputs(images)
    assert ours.ood_score is not None
    assert theirs.ood_score is not None
    spread = trained.card.calibration.ood_spread
    near = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.5}[exported.card.precision]
    np.testing.assert_allclose(
        theirs.ood_score, ours.ood_score, atol=near * spread, rtol=near / 100
    )
    known = [p.known for p in exported.predict(images)]
    assert known == [p.known for p in trained.predict(images)]
    assert not any(known[6:])


def test_a_typed_in_class_takes_no_other_images(folder: Path, trained: fewclip.Classifier) -> None:
    images = [surfaces.draw(label, i) for label in surfaces.PHRASES for i in range(4)]
    images += [Image.new("RGB", (64, 64), c) for c in ("red", "teal", "navy")]
    names = ["zebra", "grand piano", "banana"]
    ours, theirs = trained.add_classes(names), OnnxClassifier(folder, "cpu").add_classes(names)
    answers, exported = ours.predict(images), theirs.predict(images)
    assert any(answer.label in names for answer in answers)
    assert not any(answer.known for answer in answers if answer.label in names)
    assert [a.known for a in exported] == [a.known for a in answers]
    bounds = ours.model_outputs(images).named_bound, theirs.model_outputs(images).named_bound
    near = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.5}[theirs.card.precision]
    assert bounds[0] is not None
    assert bounds[1] is not None
    assert np.abs(bounds[0] - bounds[1]).max() < near


def test_it_is_normalised_in_float32(folder: Path) -> None:
    nodes = onnx.load(folder / "image.onnx").graph.node
    (last,) = (node for node in nodes if "intermediate" in node.output)
    assert last.op_type == "Div"
    assert not any("quant" in name or "scale" in name for name in last.input)


def test_the_arrays_hold_every_part(folder: Path) -> None:
    score = OnnxClassifier(folder, "cpu")._ood_score
    assert score is not None
    assert [part.shape[1] for part in score.images] == [256, 2 * 192, 192]
