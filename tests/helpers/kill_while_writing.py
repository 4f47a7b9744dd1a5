"""Helper of test_artifact: write a folder in child processes that die at every line in turn.

Usage: kill_while_writing.py FOLDER OVERWRITE. Prints how many moments there were, and after how
many of them the old folder (or none) or the new one was there; fails on anything in between.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from fewclip.artifact import card_file, read_card, whole_folder, write_folder
from fewclip.contract import Calibration, Card, HeadSpec, Preprocess
from fewclip.errors import ArtifactError

FILES = ("a.bin", "b.bin")
ARTIFACT_FILES = {card_file.__file__, whole_folder.__file__}


def fill(folder: Path, content: bytes) -> Card:
    for name in FILES:
        (folder / name).write_bytes(content)
    return Card(
        kind="model",
        name=content.decode(),
        classes=("cat",),
        phrases={"cat": "cat"},
        template="{}",
        preprocessing=Preprocess(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        method="zero-shot",
        options={},
        backbone={"name": "micro", "hash": "00", "context_length": 32},
        head=HeadSpec(logit_scale=1.0, columns=(0,)),
        calibration=Calibration(),
        seed=0,
        precision="fp32",
    )


def write_and_die_at(line: int, target: Path, overwrite: bool) -> None:
    """Write in a child process that is killed at the n-th line it runs in fewclip.artifact."""
    passed = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal passed
        if frame.f_code.co_filename not in ARTIFACT_FILES:
            return None
        if event == "line":
            passed += 1
            if passed == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    write_folder(target, lambda folder: fill(folder, b"new"), overwrite=overwrite)
    sys.settrace(None)


def state(folder: Path) -> str:
    """The name in the card of a loadable folder, whose files must then be that version's."""
    try:
        card = read_card(folder)
    except ArtifactError:
        return ""
    assert set(card.files) == set(FILES)
    assert all((folder / name).read_bytes() == card.name.encode() for name in FILES)
    return card.name


def main(root: Path, overwrite: bool) -> None:
    target, before = root / "model", "old" if overwrite else ""
    counts = {before: 0, "new": 0}
    for line in range(1, 2000):
        shutil.rmtree(target, ignore_errors=True)
        if overwrite:
            write_folder(target, lambda folder: fill(folder, b"old"))
        child = os.fork()
        if child == 0:
            write_and_die_at(line, target, overwrite)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        counts[state(target)] += 1  # a KeyError is neither old nor new
        assert target.exists() == bool(state(target)), "a folder stands there that does not load"
        for leftover in root.glob(".model.*"):
            state(leftover)
    assert state(target) == "new"
    assert os.listdir(root) == ["model"], "the last writer should have removed all leftovers"
    print(sum(counts.values()), counts[before], counts["new"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), bool(int(sys.argv[2])))
