"""Kill -9 at random moments of adapt, save, export and checkpoint writing; nothing may be lost.

    python benchmarks/kill.py --kills 50

Each kill falls at a random moment of `fewclip adapt --resume`, `fewclip add-classes --overwrite` or
`fewclip export --overwrite`, spread over the time that the command takes. After each, the folder
loads or does not exist, and any checkpoint is intact. At the end, adapt, resumed after all its
kills, has exactly the weights of a run that was never killed. Prints one row per command.
"""

from __future__ import annotations

import argparse
import collections
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fewclip.artifact import read_card, sha256_file
from fewclip.samples import digits
from fewclip.training import checkpoint

FEWCLIP = [sys.executable, "-m", "fewclip.cli"]
COMMANDS = ("adapt", "save", "export")


def write_photos(folder: Path) -> Path:
    for label in ("one", "two"):
        (folder / label).mkdir(parents=True)
        for i in range(8):
            digits.draw(label, i).save(folder / label / f"{i}.png")
    return folder


def adapt_words(photos: Path, out: Path) -> list[str]:
    words = ["adapt", str(photos), "--out", str(out), "--shots", "8", "--val", "0", "--resume"]
    return [*FEWCLIP, *words, "--method", "skip-tuning", "--epochs", "4", "--device", "cpu"]


def timed(words: list[str]) -> float:
    begin = time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    return time.monotonic() - begin


def killed(words: list[str], seconds: float) -> bool:
    """Kill the command after `seconds`; returns whether it was still running."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def check(out: Path) -> str:
    """What is at `out`; raises if it is neither intact nor absent."""
    kept = out.with_name(out.name + ".checkpoint")
    epochs = ""
    if kept.exists() and (kept / checkpoint.STATE_FILE).exists():
        found = checkpoint.load(kept, checkpoint.read_run(kept))
        assert found is not None
        epochs = f", checkpoint of {found.epochs_done} epochs"
    if not out.exists():
        return f"nothing{epochs}"
    read_card(out)
    return f"a whole model{epochs}"


def kill_many(root: Path, kills: int, seed: int) -> bool:
    """Kill `kills` times, check each time, and compare the end with a run never killed."""
    rng = random.Random(seed)
    photos, whole = write_photos(root / "photos"), root / "whole"
    lasts = {"adapt": timed(adapt_words(photos, whole))}
    base = {
        "save": [*FEWCLIP, "add-classes", str(whole), "three", "--overwrite", "--out"],
        "export": [*FEWCLIP, "export", str(whole), "--overwrite", "--out"],
    }
    words = {name: [*line, str(root / name)] for name, line in base.items()}
    lasts |= {name: timed(line) for name, line in words.items()}
    targets = {"adapt": root / "m", "save": root / "save", "export": root / "export"}
    words["adapt"] = adapt_words(photos, targets["adapt"])
    found: dict[str, collections.Counter[str]] = {c: collections.Counter() for c in COMMANDS}
    runs = 0
    finished: list[Path] = []
    while sum(sum(c.values()) for c in found.values()) < kills:
        name = COMMANDS[runs % len(COMMANDS)]
        runs += 1
        if targets["adapt"].exists():  # finished: the next kills should hit another training
            finished.append(targets["adapt"])
            targets["adapt"] = root / f"m{runs}"
            words["adapt"] = adapt_words(photos, targets["adapt"])
        if killed(words[name], rng.uniform(0.2, 1.0) * lasts[name]):
            found[name][check(targets[name])] += 1
    for name, counts in found.items():
        rows = ", ".join(f"{text} {n} times" for text, n in sorted(counts.items()))
        print(f"{name:<8} killed {sum(counts.values()):>3} times: {rows}")
    finished.append(targets["adapt"])
    for out in finished:
        subprocess.run(adapt_words(photos, out), check=True, capture_output=True)
    subprocess.run(words["save"], check=True, capture_output=True)
    hashes = {sha256_file(out / "model.safetensors") for out in [whole, *finished]}
    same = len(hashes) == 1
    left = sorted(path.name for path in root.glob(".save.*")) + sorted(
        path.name for path in root.glob("*.checkpoint")
    )
    print(f"{len(finished)} adapt runs, resumed to the bits of one never killed: {same}")
    print(f"left behind after the next run: {left or 'nothing'}")
    return same and not left


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if not kill_many(Path(name), arguments.kills, arguments.seed):
            sys.exit("not the same")


if __name__ == "__main__":
    main()
