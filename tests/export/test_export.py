"""The exported folder as another program meets it, and exports that are refused. Real graphs."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from exports import exported_model, saved_model
from handwritten_digits import LABELS, PHRASES
from onnx import numpy_helper

import fewclip
import fewclip_export
from fewclip.artifact import read_card
from fewclip.errors import ArtifactError, InputError, MissingExtraError, OptionError
from fewclip.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> fewclip.Classifier:
    return fewclip.load(saved_model(tmp_path_factory), device="cpu")


@pytest.fixture(scope="module")
def graph(folder: Path) -> onnx.ModelProto:
    return onnx.load(folder / "image.onnx")


def session(path: Path) -> ort.InferenceSession:
    """As someone who knows nothing of fewclip opens it, but for ONNX Runtime's chatter."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, 3, 64, 64)).astype(np.float32)


def shapes(values: object) -> dict[str, list[object]]:
    return {v.name: list(v.shape) for v in values}  # type: ignore[attr-defined]


# ---- what is in the folder -------------------------------------------------------------------


def test_the_folder_holds_four_files_and_its_own_contract(folder: Path) -> None:
    assert sorted(os.listdir(folder)) == ["card.json", "image.onnx", "text.onnx", "tokenizer.json"]
    card = read_card(folder)
    assert card.kind == "onnx"
    assert card.name == folder.name
    assert card.classes == LABELS
    assert card.precision == "fp32"
    assert card.template == "X X X X {}.", "four learned vectors stand before the name"
    assert set(card.files) == {"image.onnx", "text.onnx", "tokenizer.json"}


def test_the_card_says_what_was_proven(folder: Path, trained: fewclip.Classifier) -> None:
    card = read_card(folder)
    proven = card.export
    assert proven["images"] >= 200
    assert proven["origin"].startswith("18 validation images, 170 augmented views")
    assert proven["max_abs_diff"] <= 1e-3
    assert proven["top1_agreement"] == proven["new_class_agreement"] == 1.0
    assert proven["known_agreement"] == 1.0
    assert proven["accuracy_change"] == proven["accuracy_change_all"] == 0.0
    assert proven["labelled"] == 188
    assert proven["speed_vs_fp32"] == 1.0
    assert proven["forced"] is False
    assert card.calibration == trained.card.calibration


def test_inputs_and_outputs_are_the_contracts(folder: Path) -> None:
    image, text = session(folder / "image.onnx"), session(folder / "text.onnx")
    inputs = [*image.get_inputs(), *image.get_overridable_initializers()]
    assert shapes(inputs) == {"image": ["batch", 3, 64, 64], "classes": ["classes", 256]}
    assert {i.type for i in inputs} == {"tensor(float)"}
    names = ["features", "logits_itm", "logits_cat", "intermediate"]
    assert [o.name for o in image.get_outputs()] == names
    assert shapes(image.get_outputs())["features"] == ["batch", 256]
    assert shapes(image.get_outputs())["logits_itm"] == ["batch", "classes"]
    assert shapes(image.get_outputs())["logits_cat"] == ["batch", 3]
    assert [(i.name, i.type) for i in text.get_inputs()] == [("tokens", "tensor(int64)")]
    assert shapes(text.get_inputs()) == {"tokens": ["n", 32]}
    assert shapes(text.get_outputs()) == {"features": ["n", 256]}


def test_the_metadata_stands_without_the_card(graph: onnx.ModelProto, folder: Path) -> None:
    told = {p.key: p.value for p in graph.metadata_props}
    assert json.loads(told["classes"]) == list(LABELS)
    assert told["format_version"] == "5"
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert json.loads(told["preprocessing"]) == card["preprocessing"]
    (default,) = (i for i in graph.graph.initializer if i.name == "classes")
    with np.load(io.BytesIO(base64.b64decode(told["arrays"]))) as arrays:
        np.testing.assert_array_equal(arrays["class_features"], numpy_helper.to_array(default))
    assert "format_version" in {p.key for p in onnx.load(folder / "text.onnx").metadata_props}


def test_no_weight_stands_there_twice_and_nothing_points_outside(graph: onnx.ModelProto) -> None:
    big = [i for i in graph.graph.initializer if len(i.raw_data) > 10_000]
    assert len({i.raw_data for i in big}) == len(big)
    assert not any(i.external_data for i in graph.graph.initializer)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_batch_and_the_classes_may_be_replaced(folder: Path, n: int) -> None:
    image = session(folder / "image.onnx")
    features, itm, cat, _ = image.run(None, {"image": pixels(n)})
    assert (features.shape, itm.shape, cat.shape) == ((n, 256), (n, 3), (n, 3))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    five = np.eye(5, 256, dtype=np.float32)
    other = image.run(["logits_itm"], {"image": pixels(n), "classes": five})[0]
    scale = read_card(folder).head.logit_scale
    np.testing.assert_allclose(other, scale * features[:, :5], rtol=1e-4, atol=1e-4)


def test_the_text_graph_holds_the_learned_context(
    folder: Path, trained: fewclip.Classifier
) -> None:
    text, card = session(folder / "text.onnx"), read_card(folder)
    prompts = [card.template.replace("{}", PHRASES[label]) for label in LABELS]
    tokens = Tokenizer.from_file(folder / "tokenizer.json").encode(prompts, 32)
    expected = session(folder / "image.onnx").get_modelmeta().custom_metadata_map["arrays"]
    with np.load(io.BytesIO(base64.b64decode(expected))) as arrays:
        baked = arrays["class_features"]
    for n in (1, 3):
        features = text.run(None, {"tokens": tokens[:n]})[0]
        np.testing.assert_allclose(features, baked[:n], atol=1e-5)
    plain = fewclip.zero_shot(PHRASES).add_classes(["zebra"])
    unlearned = plain._class_embeddings.features
    assert unlearned is not None
    assert np.abs(features - unlearned[:3].numpy()).max() > 0.01


# ---- what is refused -------------------------------------------------------------------------


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals come before the long work."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a graph was written")

    monkeypatch.setattr("fewclip_export.exporter.export_graphs", never)


@pytest.mark.usefixtures("no_work")
def test_what_cannot_be_exported_is_said_at_once(
    trained: fewclip.Classifier,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(OptionError, match="'fp64'"):
        trained.export_onnx(tmp_path / "out", "fp64")
    with pytest.raises(InputError, match="--overwrite"):
        trained.export_onnx(folder)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"dear")
    with pytest.raises(InputError, match="never overwritten"):
        trained.export_onnx(tmp_path / "photos", overwrite=True)
    monkeypatch.setattr(trained.method, "per_image_text", True)
    with pytest.raises(OptionError, match="depend on each image"):
        trained.export_onnx(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["photos"]


@pytest.mark.parametrize("module", ["onnx", "onnxscript"])
def test_a_missing_extra_gives_the_command(
    trained: fewclip.Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fewclip\[export\]'"):
        trained.export_onnx(tmp_path / "out")


def test_importing_the_package_is_light() -> None:
    code = "import sys, fewclip_export; print([m for m in ('torch', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert fewclip_export.__all__ == ["ExportReport", "export"]


@pytest.mark.slow
def test_killed_while_exporting_nothing_is_loadable(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Killed while the graphs stand there already and the gate has not opened."""
    saved = saved_model(tmp_path_factory)
    code = (
        "import sys, fewclip\n"
        "fewclip.load(sys.argv[1], device='cpu').export_onnx(sys.argv[2], report_progress=print)"
    )
    target = tmp_path / "out"
    running = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(saved), str(target)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    assert any(line.startswith("comparing") for line in running.stdout)
    time.sleep(0.5)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    assert not target.exists()
    (half,) = tmp_path.iterdir()
    assert (half / "image.onnx").is_file()
    with pytest.raises(ArtifactError, match=r"no card\.json|holds no"):
        read_card(half)
