"""A disk that is full or read-only: one line, the right status, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

import fewclip
from fewclip import artifact
from fewclip.cli import main
from fewclip.contract import Card
from fewclip.errors import InputError


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to write more into a file, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def model(tuned: fewclip.Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk") / "m"
    tuned.save(folder)
    return folder


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert "Traceback" not in err
    assert out == ""
    return last


def test_add_classes_leaves_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_of_at_most(65536):
        assert main(["add-classes", str(model), "a", "--out", str(tmp_path / "a" / "n")]) == 2
    assert "cannot be written: File too large; nothing was left behind" in refused(capsys)
    assert os.listdir(tmp_path) == []


def test_an_overwritten_model_stays_whole(
    tuned: fewclip.Classifier, model: Path, tmp_path: Path
) -> None:
    tuned.save(tmp_path / "m")
    with (
        files_of_at_most(65536),
        pytest.raises(InputError, match="cannot be written"),
    ):
        tuned.save(tmp_path / "m", overwrite=True)
    artifact.read_card(tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]


def test_adapt_says_so_before_training(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["adapt", str(photos), "--out", str(tmp_path / "m"), "--shots", "4", "--val", "0"]
    with files_of_at_most(65536):
        assert main([*words, "--method", "skip-tuning", "--device", "cpu"]) == 2
    assert "cannot be written: File too large; the run stopped after 0 epochs" in refused(capsys)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_export_leaves_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_of_at_most(65536):
        assert main(["export", str(model), "--out", str(tmp_path / "x")]) in (1, 2)
    assert "File too large" in refused(capsys)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_whatever_the_disk_says_is_an_input_error(tmp_path: Path, number: int) -> None:
    def fill(folder: Path) -> Card:
        (folder / "half").write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(InputError, match="nothing was left behind"):
        artifact.write_folder(tmp_path / "m", fill)
    assert os.listdir(tmp_path) == []
