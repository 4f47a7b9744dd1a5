"""Bulk prediction beside the bare runtime: images/s in one run, and memory as the source grows.

    python -m benchmarks.bulk MODEL [--rows 10000 100000] [--out benchmarks/results/bulk.md]

MODEL is an exported folder. The source is a CSV with many names of 2,000 photos (500 x 375 JPEG),
read anew under every name. The bare runtime answers 500 paths in one call; turns alternate,
so that whatever else the machine does falls on both. Memory is the peak of a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.load import photos
from fewclip import bulk
from fewclip.runtime import OnnxClassifier

FILES = 2000
TURNS = 3
TURN_IMAGES = 500
CHILD = """
import sys, time
from fewclip import bulk
summary = bulk.predict(sys.argv[1], sys.argv[2], sys.argv[3], progress=False)
status = open("/proc/self/status").read()
peak = status[status.index("VmHWM:") + 6 :].split()[0]
print(summary.rows, summary.images_per_second, int(peak) / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_photos(work)
        lines = [*rate(arguments.model, work), "", *memory(arguments.model, work, arguments.rows)]
    text = "\n".join(["# Bulk prediction", "", *lines, ""])
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


def write_photos(work: Path) -> None:
    (work / "photos").mkdir()
    contents = photos(100)
    for number in range(FILES):
        (work / "photos" / f"{number}.jpg").write_bytes(contents[number % len(contents)])


def write_list(work: Path, rows: int) -> Path:
    """Many names of the same files."""
    table = work / f"{rows}.csv"
    with open(table, "w") as file:
        file.write("image_path\n")
        for number in range(rows):
            again, index = divmod(number, FILES)
            file.write(f"photos/{'../photos/' * again}{index}.jpg\n")
    return table


def rate(model: Path, work: Path) -> list[str]:
    """Turns of both in one process."""
    clf = OnnxClassifier(model)
    table = write_list(work, TURN_IMAGES)
    images = [str(work / "photos" / f"{number}.jpg") for number in range(TURN_IMAGES)]
    clf.predict(images[:64])
    bare, engine = [], []
    for turn in range(TURNS):
        begin = time.perf_counter()
        clf.predict(images)
        bare.append(TURN_IMAGES / (time.perf_counter() - begin))
        begin = time.perf_counter()
        bulk.predict(clf, table, work / f"turn-{turn}.csv", progress=False)
        engine.append(TURN_IMAGES / (time.perf_counter() - begin))
    return [
        f"| {TURN_IMAGES:,} images a turn, {TURNS} turns | images/s, best turn | median |",
        "|---|---|---|",
        f"| OnnxClassifier.predict, one call | {max(bare):.0f} | {sorted(bare)[1]:.0f} |",
        f"| bulk.predict to CSV | {max(engine):.0f} | {sorted(engine)[1]:.0f} |",
        "",
        f"Share of the bare runtime's rate: {max(engine) / max(bare):.0%} of the best turn, "
        f"{sorted(engine)[1] / sorted(bare)[1]:.0%} of the median.",
    ]


def memory(model: Path, work: Path, sizes: list[int]) -> list[str]:
    lines = ["| rows | images/s | peak memory, MB |", "|---|---|---|"]
    for rows in sizes:
        words = [sys.executable, "-c", CHILD, str(model), str(write_list(work, rows))]
        done = subprocess.run([*words, str(work / "out.csv")], capture_output=True, check=True)
        count, per_second, peak = done.stdout.split()
        assert int(count) == rows
        lines.append(f"| {rows:,} | {float(per_second):.0f} | {float(peak):.0f} |")
        for left in work.glob("out.csv*"):
            left.unlink()
    return lines


if __name__ == "__main__":
    main()
