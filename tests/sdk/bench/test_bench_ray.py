"""A sweep on Ray: killed and resumed it gives the local table, and no run is done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench_data
import pytest

METHODS = ["zero-shot", "kgcoop", "clip-adapter"]


def scores(folder: Path) -> list[Any]:
    plain = json.loads((folder / "base-to-new.json").read_text())
    return [[run["run"], run["scores"]] for run in plain["runs"]]


def finished(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*.json")}


def tasks(folder: str) -> list[int]:
    """The workers that are in a run, by the title that Ray gives them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes()
            if b"ray::_execute" in title and folder.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # gone meanwhile
            continue
    return found


@pytest.mark.slow
def test_a_killed_sweep_on_ray_goes_on_to_the_table_of_the_local_one(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = bench_data.write_folder(tmp_path / "own", ["red", "ant", "moth", "bee"], 4, 3)
    words = [sys.executable, "-m", "fewclip.cli", "bench", "base-to-new", str(own), "--seeds", "1"]
    words += ["--methods", *METHODS, "--epochs", "1", "--shots", "3", "--device", "cpu", "--out"]
    home = str(tmp_path_factory.mktemp("r"))
    environment = os.environ | {"RAY_TMPDIR": home, "OMP_NUM_THREADS": "1"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*words, str(whole)], check=True, capture_output=True, env=environment)

    on_ray = [*words, str(cut), "--engine", "ray"]
    process = subprocess.Popen(
        on_ray, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    workers: list[int] = []
    while process.poll() is None and not workers:
        workers = tasks(home)
        time.sleep(0.02)
    if not workers:
        pytest.skip("the sweep ended before a worker of it was found")
    os.kill(workers[0], signal.SIGKILL)  # its run is repeated
    while process.poll() is None and not finished(cut):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = finished(cut)
    assert kept

    done = subprocess.run(on_ray, check=True, capture_output=True, text=True, env=environment)
    assert "kept from before" in done.stderr
    assert scores(cut) == scores(whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # none was run again
    assert len(finished(cut)) == len(METHODS)
