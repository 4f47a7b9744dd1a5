"""Where and how wide an exported graph runs: the device asked for, the cores that may be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import exported_model, ood_images

from fewclip.errors import OptionError
from fewclip.runtime import OnnxClassifier, sessions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory)


def test_auto_says_what_it_took(folder: Path) -> None:
    served = OnnxClassifier(folder)
    expected = "cuda" if sessions.gpus() else "cpu"
    assert served.device == expected
    assert served.provider.lower().startswith(expected)
    assert f"on {expected}" in repr(served)


def test_a_device_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(OptionError, match="unknown device 'tpu'"):
        OnnxClassifier(folder, device="tpu")
    if not sessions.gpus():
        with pytest.raises(OptionError, match="no GPU here"):
            OnnxClassifier(folder, device="cuda")


def test_a_gpu_that_does_not_work_is_no_silent_fallback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if sessions.gpus():
        pytest.skip("there is a GPU, and it may work")
    monkeypatch.setattr(sessions, "gpus", lambda: 1)
    with pytest.raises(OptionError, match="cannot use the GPU"):
        OnnxClassifier(folder, device="cuda")
    with pytest.warns(RuntimeWarning, match="using the CPU instead"):
        opened = OnnxClassifier(folder, device="auto")
    assert opened.device == "cpu"
    assert len(opened.predict(ood_images(tmp_path, 2))) == 2


def test_a_runtime_without_cuda_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [sessions.CPU])
    with pytest.raises(OptionError, match=r"fewclip\[cuda\]"):
        OnnxClassifier(folder, device="cuda")
    assert OnnxClassifier(folder).device == "cpu"
