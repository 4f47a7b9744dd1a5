"""Where and how wide an exported graph runs: the device asked for, the cores that may be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import exported_model, strangers

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
    assert len(opened.predict(strangers(tmp_path, 2))) == 2


def test_a_runtime_without_cuda_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [sessions.CPU])
    with pytest.raises(OptionError, match=r"fewclip\[cuda\]"):
        OnnxClassifier(folder, device="cuda")
    assert OnnxClassifier(folder).device == "cpu"


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("", 4)]
)
def test_threads_respect_affinity_siblings_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    """Eight hyper-threads of four cores."""

    def read(path: str) -> str:
        if path.endswith("cpu.max"):
            return quota
        number = int(path.split("/cpu/cpu")[1].split("/")[0])
        return f"{number % 4},{number % 4 + 4}"

    monkeypatch.setattr(sessions, "_read", read)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    sessions.usable_cores.cache_clear()
    assert sessions.usable_cores() == expected
    sessions.usable_cores.cache_clear()
