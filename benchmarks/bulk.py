"""Bulk prediction: its rate beside the bare runtime's, its memory as the source grows, kills.

    python -m benchmarks.bulk MODEL [--rows 10000 100000] [--size 500 375] [--kills 10]
        [--out benchmarks/results/bulk.md]

MODEL is an exported folder. The source is a folder of many names (hard links) of 4,000 JPEGs, read
again under every name. The bare runtime answers 1,000 paths in one call; turns alternate, so that
other load on the machine affects both. Memory is the peak of a process of its own.

With --kills, `fewclip predict` over the largest source is killed (SIGKILL) at that many random
moments, restarted each time by the same command, and its rows are compared with those of the
uninterrupted run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.service.load import photos
from fewclip import bulk
from fewclip.runtime import OnnxClassifier

FILES = 4000
FOLDER_FILES = 1000
TURNS = 3
TURN_IMAGES = 1000
CHILD = """
import sys
from fewclip import bulk
summary = bulk.predict(sys.argv[1], sys.argv[2], sys.argv[3], progress=False)
status = open("/proc/self/status").read()
peak = status[status.index("VmHWM:") + 6 :].split()[0]
print(summary.rows, summary.images_per_second, int(peak) / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), metavar=("W", "H"))
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_photos(work, tuple(arguments.size))
        lines = rate(arguments.model, work)
        lines += ["", *memory(arguments.model, work, sorted(arguments.rows))]
        if arguments.kills:
            rows = max(arguments.rows)
            lines += ["", *killed(arguments.model, work, rows, arguments.kills, arguments.seed)]
    width, height = arguments.size
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    lines += ["", f"JPEGs of {width} x {height}; {os.cpu_count()} cores, load at the end {load}."]
    text = "\n".join(["# Bulk prediction", "", *lines, ""])
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


# ---- the source ------------------------------------------------------------------------------


def write_photos(work: Path, size: tuple[int, int]) -> None:
    """FILES files with a hundred different contents."""
    (work / "photos").mkdir()
    contents = photos(100, size)
    for number in range(FILES):
        (work / "photos" / f"{number}.jpg").write_bytes(contents[number % len(contents)])


def write_source(work: Path, rows: int) -> Path:
    """A folder of folders: many names for the same files."""
    source = work / f"source-{rows}"
    for number in range(rows):
        folder, index = divmod(number, FOLDER_FILES)
        if not index:
            (source / f"{folder:04d}").mkdir(parents=True)
        link = source / f"{folder:04d}" / f"{index:04d}.jpg"
        os.link(work / "photos" / f"{number % FILES}.jpg", link)
    return source


# ---- rate and memory -------------------------------------------------------------------------


def rate(model: Path, work: Path) -> list[str]:
    """Alternating turns of both in one process."""
    clf = OnnxClassifier(model)
    source = write_source(work, TURN_IMAGES)
    images = [str(path) for path in sorted(source.rglob("*.jpg"))]
    clf.predict(images[:64])
    runs: dict[str, Callable[[int], object]] = {
        "OnnxClassifier.predict, one call": lambda _: clf.predict(images),
        "bulk.predict to CSV": lambda turn: bulk.predict(
            clf, source, work / f"turn-{turn}.csv", progress=False
        ),
    }
    turns: dict[str, list[Turn]] = {name: [] for name in runs}
    for number in range(TURNS):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run(number)
            turns[name].append(Turn(time.perf_counter() - wall, time.process_time() - cpu))
    lines = [
        f"| {TURN_IMAGES:,} images a turn, {TURNS} turns | images/s, best turn | median "
        "| CPU ms/image, least |",
        "|---|---|---|---|",
    ]
    best, middle, cpu_each = zip(*(_figures(taken) for taken in turns.values()), strict=True)
    for name, *figures in zip(turns, best, middle, cpu_each, strict=True):
        lines.append(f"| {name} | {figures[0]:.0f} | {figures[1]:.0f} | {figures[2]:.2f} |")
    return [
        *lines,
        "",
        f"Share of the bare runtime's rate: {best[1] / best[0]:.0%} of the best turn, "
        f"{middle[1] / middle[0]:.0%} of the median, {cpu_each[0] / cpu_each[1]:.0%} by CPU time.",
    ]


class Turn(NamedTuple):
    """Seconds of one turn."""

    wall: float
    cpu: float


def _figures(turns: Sequence[Turn]) -> tuple[float, float, float]:
    """Images/s of the best turn and of the median one, least CPU milliseconds per image."""
    walls = [turn.wall for turn in turns]
    least = min(turn.cpu for turn in turns)
    return (
        TURN_IMAGES / min(walls),
        TURN_IMAGES / statistics.median(walls),
        1000 * least / TURN_IMAGES,
    )


def memory(model: Path, work: Path, sizes: list[int]) -> list[str]:
    """Each size in a process of its own; the rows stay in `work`."""
    lines = ["| rows | images/s | peak memory, MB |", "|---|---|---|"]
    for rows in sizes:
        source = work / f"source-{rows}"
        if not source.exists():
            write_source(work, rows)
        argv = [sys.executable, "-c", CHILD, str(model), str(source), str(whole(work, rows))]
        done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
        count, per_second, peak = done.stdout.split()
        assert int(count) == rows
        lines.append(f"| {rows:,} | {float(per_second):.0f} | {float(peak):.0f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def whole(work: Path, rows: int) -> Path:
    """Where the rows of the uninterrupted run are."""
    return work / f"whole-{rows}.jsonl"


# ---- killed ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Difference:
    """How the rows of a killed run differ from those of an uninterrupted one."""

    rows: int
    names: int
    order: bool
    answers: int
    to_the_byte: int
    score: float


def killed(model: Path, work: Path, rows: int, kills: int, seed: int) -> list[str]:
    """Kill the command at random moments over about the time it needs, then let it finish."""
    cut = work / "cut.jsonl"
    argv = [sys.executable, "-m", "fewclip.cli", "predict", str(model)]
    argv += [str(work / f"source-{rows}"), "--out", str(cut)]
    moments = random_moments(kills, seconds_of(model, work, rows), seed)
    happened = []
    begin = time.monotonic()
    for seconds in moments:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(seconds)
            break  # finished before it could be killed
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            happened.append(seconds)
            print(f"killed after {seconds:.0f} s", file=sys.stderr, flush=True)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = compared(cut, whole(work, rows))
    listed = ", ".join(f"{seconds:.0f}" for seconds in happened)
    return [
        f"Killed (SIGKILL) {len(happened)} times, {listed} s after each start, and started again "
        f"by the same command; {time.monotonic() - begin:.0f} s in all.",
        "",
        "| after the last start | |",
        "|---|---|",
        f"| rows | {found.rows:,} |",
        f"| different images among them | {found.names:,} |",
        f"| order of the uninterrupted run | {'yes' if found.order else 'no'} |",
        f"| rows with another label, `known` or error | {found.answers:,} |",
        f"| rows equal to the byte | {found.to_the_byte:,} |",
        f"| largest difference of a score | {found.score:.1e} |",
    ]


def seconds_of(model: Path, work: Path, rows: int) -> float:
    """Estimated seconds of an uninterrupted run, from a thousand images."""
    argv = [sys.executable, "-c", CHILD, str(model), str(work / f"source-{TURN_IMAGES}")]
    done = subprocess.run(
        [*argv, str(work / "pace.jsonl")], stdout=subprocess.PIPE, check=True, text=True
    )
    return rows / float(done.stdout.split()[1])


def random_moments(kills: int, seconds: float, seed: int) -> list[float]:
    """Seconds after each start; together about nine tenths of what the work needs."""
    rng = random.Random(seed)
    return [rng.uniform(0, 1.8 * seconds / kills) for _ in range(kills)]


def compared(cut: Path, reference: Path) -> Difference:
    """Compare both files row by row."""
    names: set[str] = set()
    rows = answers = same = 0
    order, score = True, 0.0
    with cut.open() as found, reference.open() as expected:
        for mine, other in zip(found, expected, strict=False):
            a, b = json.loads(mine), json.loads(other)
            rows += 1
            names.add(a["image"])
            order &= a["image"] == b["image"]
            answers += _answer(a) != _answer(b)
            same += mine == other
            score = max(score, abs((a["score"] or 0) - (b["score"] or 0)))
        rows += sum(1 for _ in found)
        order &= not expected.readline()
    return Difference(rows, len(names), order, answers, same, score)


def _answer(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["label"], row["known"], row["error"]


if __name__ == "__main__":
    main()
