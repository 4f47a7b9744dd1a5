"""The gate: graphs that answer differently, or kill the runtime, leave no folder behind."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exports import exported_model, saved_model
from onnx import helper, numpy_helper

import fewclip
from fewclip.cli import main
from fewclip.contract import CLASSES_INPUT, IMAGE_INPUT, ITM_OUTPUT, Calibration, Card
from fewclip.decide import ModelOutputs
from fewclip.errors import GateError
from fewclip.runtime import OnnxClassifier
from fewclip_export import ExportReport, exporter, parity, parity_images
from fewclip_export.comparison import ModelRun
from fewclip_export.graph import CUTS
from fewclip_export.parity import failures
from fewclip_export.report import Findings

GOOD = Findings(
    images=212,
    images_alone=31,
    origin="200 validation images, 12 odd sizes and modes",
    near_ties=0,
    max_abs_diff=1e-5,
    top1_agreement=1.0,
    new_class_agreement=1.0,
    known_agreement=1.0,
    labelled=200,
    accuracy_change=0.0,
    accuracy_change_all=0.0,
    speed_vs_fp32=1.0,
)


# ---- the limits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "field", "passes", "fails", "said"),
    [
        ("fp32", "max_abs_diff", 0.001, 0.0011, "0.0011, 0.001 is allowed"),
        ("fp32", "top1_agreement", 1.0, 0.995, "99.50% of the images, 100% is needed"),
        ("fp32", "new_class_agreement", 1.0, 0.995, "classes are added"),
        ("fp32", "known_agreement", 1.0, 0.995, "unknown"),
        ("fp16", "top1_agreement", 0.99, 0.989, "98.90% of the images, 99% is needed"),
        ("fp16", "max_abs_diff", 5.0, float("nan"), "not finite"),
        ("int8", "top1_agreement", 0.97, 0.969, "96.90% of the images, 97% is needed"),
        ("int8", "accuracy_change_all", -0.01, -0.015, "1.50 points of accuracy lost on 200"),
        ("int8", "max_abs_diff", 5.0, float("inf"), "not finite"),
    ],
)
def test_each_limit_lets_through_and_stops(
    precision: str, field: str, passes: float, fails: float, said: str
) -> None:
    changes: dict[str, Any] = {field: passes}
    assert failures(dataclasses.replace(GOOD, **changes), precision) == ()
    changes[field] = fails
    (failure,) = failures(dataclasses.replace(GOOD, **changes), precision)
    assert said in failure


def test_a_better_accuracy_and_no_labels_are_no_failure() -> None:
    for change in (0.05, None):
        assert failures(dataclasses.replace(GOOD, accuracy_change_all=change), "int8") == ()


# ---- the comparison --------------------------------------------------------------------------


def side(rows: list[list[float]], ood_score: list[float] | None = None, **changes: Any) -> ModelRun:
    card = dataclasses.replace(CARD, **changes)
    seen = None if ood_score is None else np.array(ood_score)
    return ModelRun(card, ModelOutputs(np.array(rows, np.float32), None, seen))


CARD = fewclip.zero_shot(["a", "b", "c"]).card


def test_near_ties_do_not_count() -> None:
    ours = side([[1.0, 0.9995, 0.0], [1.0, 0.9, 0.0], [0.0, 0.0, 1.0], [3.0, 0.0, 1.0]])
    theirs = side([[1.0, 1.1, 0.0], [1.0, 1.1, 0.0], [0.0, 0.0, 1.0], [3.0, 0.0, 1.0]])
    share, ties = ours.same_class([theirs])
    assert ties == 1
    assert share == pytest.approx(2 / 3)


def test_every_batch_size_must_agree() -> None:
    ours = side([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    other = side([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert ours.same_class([ours, other])[0] == 0.5
    assert ours.difference(other) == 1.0


def test_images_run_alone_count_beside_their_batch() -> None:
    ours = side([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    alone = ours.replaced(slice(None, None, 2), side([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
    assert ours.same_class([alone, ours])[0] == pytest.approx(2 / 3)
    assert ours.difference(alone) == 2.0


def test_logits_that_are_not_finite_differ_without_bound() -> None:
    ours = side([[1.0, 0.0, 0.0]])
    assert not np.isfinite(ours.difference(side([[1.0, float("nan"), 0.0]])))


def test_strangers_are_compared_at_the_threshold() -> None:
    trained = dataclasses.replace(CARD.head, columns=(0, 1, 2))
    card: dict[str, Any] = {"calibration": Calibration(threshold=2.0, n=9), "head": trained}
    rows = [[1.0, 0, 0]] * 3
    ours = side(rows, [1.0, 3.0, 2.0005], **card)
    theirs = side(rows, [2.5, 3.0, 1.9995], **card)
    assert ours.same_known([theirs]) == 0.5, "the third is a near tie"
    bare = {**card, "calibration": Calibration(n=9)}
    assert side(rows, [1.0] * 3, **bare).same_known([side(rows, [9.0] * 3, **bare)]) == 1.0
    assert side(rows, **card).same_known([side(rows, **card)]) == 1.0, "no score"


def test_accuracy_counts_labelled_images_alone() -> None:
    ours = side([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    theirs = side([[1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0]])
    assert ours.accuracy_change(theirs, np.array([0, 1, -1])) == -0.5
    assert ours.accuracy_change(theirs, np.array([-1, -1, -1])) is None


# ---- graphs that answer differently ----------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> fewclip.Classifier:
    return fewclip.load(saved_model(tmp_path_factory), device="cpu")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A real export's graphs, put back to how `export_graphs` left them; and what it returned."""
    folder, source = tmp_path_factory.mktemp("graphs"), exported_model(tmp_path_factory)
    image, text = onnx.load(source / "image.onnx"), onnx.load(source / "text.onnx")
    features = image.graph.initializer.pop()
    assert features.name == CLASSES_INPUT
    for model, cuts in ((image, CUTS), (text, CUTS[:1])):
        model.graph.output.extend(
            helper.make_tensor_value_info(cut, onnx.TensorProto.FLOAT, None) for cut in cuts
        )
    onnx.save(image, folder / "image.onnx")
    onnx.save(text, folder / "text.onnx")
    return folder, numpy_helper.to_array(features)


Spoil = Callable[[Path, Path], None]


@pytest.fixture
def spoiled(
    graphs: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Spoil], None]:
    """spoiled(change): exports write the good graphs and then change them. Fewer images, too."""
    monkeypatch.setattr(parity_images, "AT_LEAST", 24)

    def use(change: Spoil) -> None:
        def write(method: Any, card: Card, tokens: Any, image: Path, text: Path) -> np.ndarray:
            folder, features = graphs
            image.write_bytes((folder / "image.onnx").read_bytes())
            text.write_bytes((folder / "text.onnx").read_bytes())
            change(image, text)
            return features

        monkeypatch.setattr(exporter, "export_graphs", write)

    return use


def shifted(path: Path, by: float) -> None:
    """The largest one-dimensional weight, a bias deep inside, moved."""
    model = onnx.load(path)
    flat = [i for i in model.graph.initializer if len(i.dims) == 1 and i.data_type == 1]
    weight = max(flat, key=lambda i: i.dims[0])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + by, weight.name))
    onnx.save(model, path)


def batch_dependent(path: Path, by: float) -> None:
    """`by` times the batch size added to the ITM logits."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["plain" if name == ITM_OUTPUT else name for name in node.output]
    size = numpy_helper.from_array(np.array(by, np.float32), "by")
    model.graph.initializer.append(size)
    model.graph.node.extend(
        [
            helper.make_node("Shape", [IMAGE_INPUT], ["batch"], start=0, end=1),
            helper.make_node("Cast", ["batch"], ["batch_float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", ["batch_float", "by"], ["more"]),
            helper.make_node("Add", ["plain", "more"], [ITM_OUTPUT]),
        ]
    )
    onnx.save(model, path)


def test_where_the_batch_matters_every_image_is_also_run_alone(
    trained: fewclip.Classifier, spoiled: Callable[[Spoil], None], tmp_path: Path
) -> None:
    spoiled(lambda image, text: batch_dependent(image, 5e-5))
    report = trained.export_onnx(tmp_path / "out")
    assert report.passed
    assert report.max_abs_diff > 2e-4
    assert report.images_alone == report.images


def test_a_graph_that_answers_differently_leaves_nothing(
    trained: fewclip.Classifier, spoiled: Callable[[Spoil], None], tmp_path: Path
) -> None:
    spoiled(lambda image, text: shifted(image, 0.5))
    with pytest.raises(GateError) as caught:
        trained.export_onnx(tmp_path / "out")
    said = str(caught.value)
    assert "logits differ by up to" in said
    assert "0.001 is allowed" in said
    assert "validation images" in said
    assert "--force" in said
    assert os.listdir(tmp_path) == []


def test_a_bad_text_tower_is_found_by_classes_it_alone_knows(
    trained: fewclip.Classifier, spoiled: Callable[[Spoil], None], tmp_path: Path
) -> None:
    spoiled(lambda image, text: shifted(text, 0.5))
    with pytest.raises(GateError, match="logits differ"):
        trained.export_onnx(tmp_path / "out")


def test_a_graph_that_onnx_runtime_refuses_fails_the_gate_in_words(
    trained: fewclip.Classifier,
    spoiled: Callable[[Spoil], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter, "finish_graph", lambda *_: None)

    def spoil(image: Path, text: Path) -> None:
        image.write_bytes(b"no graph")

    spoiled(spoil)
    with pytest.raises(GateError, match=r"ONNX Runtime failed on it .*image\.onnx"):
        trained.export_onnx(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_runtime_that_crashes_is_a_failed_gate(
    trained: fewclip.Classifier,
    spoiled: Callable[[Spoil], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other process dies of a real SIGSEGV as it starts."""
    importlib.import_module("onnxruntime.transformers")  # extends sys.path, which is restored below
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.syspath_prepend(trap)
    spoiled(lambda image, text: None)
    with pytest.raises(
        GateError, match=r"crashed on it \(SIGSEGV\).*try --precision fp32"
    ) as caught:
        trained.export_onnx(tmp_path / "out", "fp16")
    assert "--force" not in str(caught.value), "what crashes is never written"
    assert os.listdir(tmp_path) == ["trap"]


def test_a_runtime_that_hangs_is_a_failed_gate(
    trained: fewclip.Classifier,
    spoiled: Callable[[Spoil], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parity, "TIMEOUT", 0.01)
    spoiled(lambda image, text: None)
    with pytest.raises(GateError, match="did not answer"):
        trained.export_onnx(tmp_path / "out")


# ---- what the user sees ----------------------------------------------------------------------


def test_images_may_be_given(
    trained: fewclip.Classifier, spoiled: Callable[[Spoil], None], tmp_path: Path
) -> None:
    from handwritten_digits import write_digits

    spoiled(lambda image, text: None)
    data = write_digits(tmp_path / "more", 60, 3)
    report = trained.export_onnx(tmp_path / "labelled", images=data)
    assert report.origin.startswith("9 images given, 3 augmented views")
    assert report.accuracy_change == 0.0
    paths = sorted(data.glob("*/*.png"))
    report = trained.export_onnx(tmp_path / "plain", images=paths)
    assert report.origin.startswith("9 images given")
    assert report.accuracy_change is None
    assert report.labelled == 0


def test_without_any_image_pictures_are_generated_and_it_is_said(
    trained: fewclip.Classifier, spoiled: Callable[[Spoil], None], tmp_path: Path
) -> None:
    spoiled(lambda image, text: None)
    card = dataclasses.replace(trained.card, data={})
    bare = fewclip.Classifier(trained.method, card, ood_score=trained.ood_score)
    report = bare.export_onnx(tmp_path / "out")
    assert "24 generated pictures" in report.origin
    assert "--images" in report.origin
    assert report.accuracy_change is None


def test_the_report_is_json_and_a_table_and_the_other_side_needs_no_torch(
    trained: fewclip.Classifier,
    spoiled: Callable[[Spoil], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoiled(lambda image, text: None)
    replies: list[dict[str, Any]] = []
    ask = parity._run

    def run(*arguments: Any) -> Any:
        replies.append(ask(*arguments))
        return replies[-1]

    monkeypatch.setattr(parity, "_run", run)
    steps: list[str] = []
    report = trained.export_onnx(tmp_path / "out", report_progress=steps.append)
    assert not replies[0]["torch"]
    assert isinstance(report, ExportReport)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["folder"] == str(tmp_path / "out")
    assert plain["files"] == {
        path.name: path.stat().st_size
        for path in sorted((tmp_path / "out").iterdir())
        if path.name != "card.json"
    }
    assert plain["size"] == sum(plain["files"].values())
    for word in ("fp32", "MB", "logit difference", "same best class", "accuracy change", "speed"):
        assert word in str(report)
    assert steps[0] == "writing the graphs"
    assert steps[-1].startswith("comparing")


def test_the_command_line_exits_with_2_and_force_brands_the_card(
    spoiled: Callable[[Spoil], None],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoiled(lambda image, text: shifted(image, 0.5))
    saved = str(saved_model(tmp_path_factory))
    assert main(["export", saved, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("fewclip: the fp32 export does not answer as the trained model")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main(["export", saved, "--out", str(tmp_path / "out"), "--force", "--json"]) == 0
    reply = json.loads(capsys.readouterr().out)
    exported = OnnxClassifier(tmp_path / "out").card.export
    assert reply["forced"] is exported["forced"] is True
    assert reply["failures"] == exported["failures"]
    assert any("logits differ by up to" in failure for failure in exported["failures"])


def test_a_forced_report_says_so() -> None:
    fields = dataclasses.asdict(GOOD)
    files: dict[str, Any] = {"precision": "fp32", "folder": "out", "files": {}, "size": 0}
    report = ExportReport(**fields, **files, failures=("logits differ",))
    assert report.forced
    assert not report.passed
    assert "FORCED IN SPITE OF" in str(report)
    assert "logits differ" in str(report)
