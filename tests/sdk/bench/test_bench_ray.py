"""A sweep and a comparison on Ray: killed and resumed they give the local table, no run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench_data
import pytest

from fewclip.cli import main

# Ray warns of its own future, and leaves sockets and files to the garbage collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

METHODS = ["zero-shot", "clip-adapter"]
SECONDS = 120.0  # for one step of a driver, on a busy machine


class Driver:
    """`fewclip ...` in a process of its own that starts Ray, both in `home`."""

    def __init__(self, argv: list[str], home: Path) -> None:
        self._home = str(home)
        self._log = home / "driver.log"
        environment = os.environ | {"RAY_TMPDIR": self._home, "OMP_NUM_THREADS": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fewclip.cli", *argv],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, what: Callable[[], Any]) -> Any:
        """What is found; a driver that ends or hangs before fails the test with its output."""
        ends = time.monotonic() + SECONDS
        while not (found := what()):
            if self._process.poll() is not None or time.monotonic() > ends:
                self.kill()
                pytest.fail(f"nothing came of the driver:\n{self._log.read_text()}")
            time.sleep(0.02)
        return found

    def tasks(self) -> list[int]:
        """Its workers that are in a run, by the title that Ray gives them."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                title = (process / "cmdline").read_bytes()
                mine = self._home.encode() in (process / "environ").read_bytes()
            except OSError:  # gone meanwhile, or another user's
                continue
            if mine and b"ray::_call" in title:
                found.append(int(process.name))
        return found

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def finished(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*.json")}


def bench_table(folder: Path, printed: str) -> Any:
    plain = json.loads((folder / "base-to-new.json").read_text())
    return [[run["run"], run["scores"]] for run in plain["runs"]]


def compare_table(folder: Path, printed: str) -> Any:
    costs = ("seconds", "peak_mb")
    rows = json.loads(printed)["rows"]
    return [{key: value for key, value in row.items() if key not in costs} for row in rows]


CASES = {
    "bench": (
        ["bench", "base-to-new", "--seeds", "1", "--epochs", "1", "--shots", "3"],
        bench_table,
        len(METHODS),
    ),
    "compare": (
        ["compare", "--folds", "2", "--shots", "2", "--json"],
        compare_table,
        2 + 2,  # both heads on all folds, the adapter on each
    ),
}


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short name: Ray puts sockets into it, whose paths may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.parametrize("name", CASES)
def test_killed_on_ray_it_goes_on_to_the_table_of_the_local_one(
    name: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv, table, runs = CASES[name]
    own = bench_data.write_folder(tmp_path / "own", ["red", "ant", "moth", "bee"], 4, 3)
    first, *options = argv
    where = ["base-to-new", str(own)] if first == "bench" else [str(own)]
    options = [option for option in options if option != "base-to-new"]
    argv = [first, *where, *options, "--methods", *METHODS, "--device", "cpu", "--out"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*argv, str(whole)]) == 0
    expected = table(whole, capsys.readouterr().out)

    on_ray = [*argv, str(cut), "--engine", "ray"]
    first_home, second_home = home / "1", home / "2"
    first_home.mkdir()
    second_home.mkdir()
    driver = Driver(on_ray, first_home)
    os.kill(driver.wait_for(driver.tasks)[0], signal.SIGKILL)  # its run is repeated
    kept = driver.wait_for(lambda: finished(cut))
    driver.kill()

    monkeypatch.setenv("RAY_TMPDIR", str(second_home))
    assert main(on_ray) == 0
    printed = capsys.readouterr()
    assert "kept from before" in printed.err
    assert table(cut, printed.out) == expected
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # none was run again
    assert len(finished(cut)) == runs
