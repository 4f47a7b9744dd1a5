"""Checkpoints: whole, checked, never thrown away too early, and one run at a time."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import fewclip
from fewclip.cli import main
from fewclip.errors import CheckpointError
from fewclip.training import AdaptConfig, make_plan, run_lock
from fewclip.training import checkpoint as checkpoints

OPTIONS: dict[str, Any] = {"method": "kgcoop", "shots": 4, "val": 0, "device": "cpu", "epochs": 3}


def stop_in_second_epoch(progress: Any) -> None:
    if progress.epoch == 2:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def begun(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run that was stopped after one of its three epochs."""
    folder = tmp_path_factory.mktemp("begun") / "m.checkpoint"
    with pytest.raises(fewclip.errors.StoppedError):
        fewclip.adapt(photos, checkpoint=folder, progress=stop_in_second_epoch, **OPTIONS)
    return folder


@pytest.fixture
def folder(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "m.checkpoint"))


def resume(photos: Path, folder: Path) -> fewclip.Classifier:
    return fewclip.adapt(photos, checkpoint=folder, progress=False, **OPTIONS)


def words(photos: Path, out: Path, *more: str) -> list[str]:
    return [
        "adapt", str(photos), "--out", str(out), "--method", "kgcoop", "--shots", "4",
        "--val", "0", "--device", "cpu", "--epochs", "3", *more,
    ]  # fmt: skip


def change(folder: Path, spoil: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Edit header and tensors as somebody would who makes the checksum fit."""
    file = folder / checkpoints.STATE_FILE
    with safe_open(file, framework="pt") as handle:
        header = json.loads(handle.metadata()[checkpoints.HEADER])
    tensors = load_file(file)
    spoil(header, tensors)
    if header.get("sha256"):
        header["sha256"] = checkpoints._digest(checkpoints._Header(**header), tensors)
    save_file(tensors, file, metadata={checkpoints.HEADER: json.dumps(header)})


def without_momentum(header: dict[str, Any], tensors: dict[str, Any]) -> None:
    header["momentum"] = []
    for name in [name for name in tensors if name.startswith("momentum/")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda h, t: h.update(epochs_done=10**6), "1000000 epochs, 1 losses"),
        (lambda h, t: h.update(epochs_done=-1), "-1 epochs"),
        (lambda h, t: h.update(epochs_done=4, history=[1.0] * 4), "4 epochs done of 3"),
        (lambda h, t: h.update(epochs_done="x"), "epochs_done must be a whole number"),
        (lambda h, t: h.update(run=None), "run must be an object"),
        (lambda h, t: h.update(history=[float("nan")]), "must be a finite number"),
        (lambda h, t: t.pop("parameters/context"), "missing tensor 'context'"),
        (lambda h, t: t.pop("momentum/context"), "momentum is incomplete"),
        (without_momentum, "momentum is missing"),
        (lambda h, t: t.update({"parameters/context": torch.zeros(1)}), "'context' is torch"),
        (lambda h, t: t.update({"parameters/more": torch.zeros(1)}), "unknown tensor 'more'"),
        (lambda h, t: t.update({"state/more": torch.zeros(1)}), "unknown tensor 'more'"),
        (lambda h, t: t.update({"more": torch.zeros(1)}), "cannot be read"),
        (lambda h, t: h.update(sha256=""), "was changed"),
        (lambda h, t: h.pop("format"), "written by another version"),
        (lambda h, t: h.update(run={**h["run"], "threads": 99}), "set OMP_NUM_THREADS=99"),
    ],
)
def test_a_checkpoint_that_is_not_this_runs_is_refused_in_one_line(
    photos: Path, folder: Path, spoil: Callable[..., Any], says: str
) -> None:
    def unsigned(header: dict[str, Any], tensors: dict[str, Any]) -> None:
        spoil(header, tensors)
        if "format" not in header:
            header.pop("sha256")

    change(folder, unsigned)
    with pytest.raises(CheckpointError, match=says) as caught:
        resume(photos, folder)
    assert len(str(caught.value).splitlines()) == 1
    assert (folder / checkpoints.STATE_FILE).exists()


def test_zeroed_bytes_are_noticed(photos: Path, folder: Path) -> None:
    file = folder / checkpoints.STATE_FILE
    with file.open("r+b") as handle:
        handle.seek(-2000, os.SEEK_END)
        handle.write(bytes(2000))
    with pytest.raises(CheckpointError, match="was changed since it was written"):
        resume(photos, folder)


def test_a_wrong_word_or_a_failed_run_deletes_no_checkpoint(
    photos: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / checkpoints.STATE_FILE).read_bytes()
    out = folder.with_suffix("")
    assert main(words(photos / "TYPO", out)) == 2
    assert (folder / checkpoints.STATE_FILE).read_bytes() == before
    assert main(words(photos, out, "--set", "n_ctx=2", "--resume")) == 2
    assert (folder / checkpoints.STATE_FILE).read_bytes() == before
    capsys.readouterr()
    assert main(words(photos, out, "--set", "lr=x")) == 2
    assert os.listdir(folder) == [checkpoints.STATE_FILE]


def test_a_run_afresh_keeps_the_old_checkpoint_until_it_is_done(
    photos: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / checkpoints.STATE_FILE).read_bytes()
    out = folder.with_suffix("")
    with monkeypatch.context() as patched:
        patched.setattr(fewclip.training.progress, "to_stderr", lambda: stop_in_second_epoch)
        assert main(words(photos, out)) == 130
    assert (folder / "state.1.safetensors").read_bytes() == before
    assert "kept as state.1.safetensors" in capsys.readouterr().err
    assert main(words(photos, out)) == 0
    assert not folder.exists()
    assert fewclip.load(out, device="cpu").card.training["resumed_from_epochs"] == []


def test_a_wrong_word_leaves_no_folder(photos: Path, tmp_path: Path) -> None:
    assert main(words(photos / "TYPO", tmp_path / "not" / "yet" / "m")) == 2
    assert os.listdir(tmp_path) == []


def test_a_second_run_on_the_same_output_is_refused_at_once(
    photos: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_lock.held(folder):
        assert main(words(photos, folder.with_suffix(""))) == 2
        assert "another run is using" in capsys.readouterr().err
        with pytest.raises(CheckpointError, match="another run is using"):
            resume(photos, folder)
    handle = os.open(folder, os.O_RDONLY)  # lifted
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_a_full_disk_stops_the_run_in_one_line_and_keeps_the_old_checkpoint(
    photos: Path, folder: Path
) -> None:
    before = (folder / checkpoints.STATE_FILE).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(CheckpointError, match="cannot be written: File too large"):
            resume(photos, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(folder) == [checkpoints.STATE_FILE]
    assert (folder / checkpoints.STATE_FILE).read_bytes() == before


def test_the_fingerprint_names_what_the_last_bits_depend_on(photos: Path) -> None:
    def fingerprint() -> dict[str, Any]:
        return dict(make_plan(photos, AdaptConfig(precision="fp32", **OPTIONS)).run)

    threads = torch.get_num_threads()
    one = fingerprint()
    assert one == fingerprint()
    assert (one["torch"], one["threads"]) == (torch.__version__, threads)
    assert one["cpu"].split()
    torch.set_num_threads(threads + 1)
    try:
        assert fingerprint() == {**one, "threads": threads + 1}
    finally:
        torch.set_num_threads(threads)


def test_a_checkpoint_says_what_is_in_it(folder: Path) -> None:
    run = checkpoints.read_run(folder)
    found = checkpoints.load(folder, run)
    assert found is not None
    assert (found.epochs_done, len(found.history)) == (1, 1)
    assert dataclasses.replace(found) == found


def test_what_a_killed_run_left_beside_a_finished_model_goes(photos: Path, folder: Path) -> None:
    out = folder.with_suffix("")
    assert main(words(photos, out, "--resume")) == 0
    folder.mkdir()
    assert main(words(photos, out, "--resume")) == 0
    assert os.listdir(out.parent) == [out.name]
