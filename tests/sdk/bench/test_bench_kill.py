"""A sweep killed at random moments and started again ends with the same table."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench_data
import pytest


def accuracies(folder: Path) -> list[dict[str, Any]]:
    plain = json.loads((folder / "base-to-new.json").read_text())
    for row in plain["rows"]:
        del row["seconds"], row["peak_mb"]
    return [plain["rows"], [[run["run"], run["scores"]] for run in plain["runs"]]]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_same_table(tmp_path: Path) -> None:
    own = bench_data.write_folder(tmp_path / "own", ["red", "ant", "moth", "bee"], 4, 3)
    words = [sys.executable, "-m", "fewclip.cli", "bench", "base-to-new", str(own)]
    words += ["--methods", "kgcoop", "coop+dept", "clip-adapter", "--epochs", "1", "--shots", "3"]
    words += ["--device", "cpu", "--out"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*words, str(whole)], check=True, capture_output=True)
    rng = random.Random()
    killed, kept = 0, 0
    for attempt in range(2):
        process = subprocess.Popen([*words, str(cut)], stderr=subprocess.DEVNULL, stdout=-3)
        # Not before it has begun a run, then at any moment of the runs that follow.
        while process.poll() is None and len(finished(cut)) <= attempt:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.5)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        kept = len(finished(cut))
    assert killed, "no sweep was alive when it was to be killed"
    assert kept > 0
    before = {path: path.stat().st_mtime_ns for path in finished(cut)}
    subprocess.run([*words, str(cut)], check=True, capture_output=True)
    assert accuracies(cut) == accuracies(whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # none was run again


def finished(folder: Path) -> list[Path]:
    return sorted((folder / "runs").glob("*.json"))
