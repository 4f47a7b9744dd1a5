"""What methods reach on photos like a user's own. Prints a Markdown table.

    python -m benchmarks.own_data [DATA] [--methods gda linear-probe ...] [--shots 4 8 16]
                                  [--seeds 1 2 3] [--tasks cifar-10 signs digits surfaces tiny-20]

DATA holds the photo archives (default: shared/data beside the project). Learned from training
photos, measured once on test photos, which took part in no choice. "features + LR" is what most
people would do instead: scikit-learn's logistic regression on CLIP's image features, C by
cross-validation.
"""

from __future__ import annotations

import argparse
import itertools
import tarfile
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fewclip
from fewclip.report import Report
from fewclip.samples import digits, surfaces
from fewclip.selection.baselines import REGRESSION, fit_reference

METHODS = ("zero-shot", REGRESSION, "gda", "linear-probe")
TASKS = ("cifar-10", "signs", "digits", "surfaces", "tiny-20")
Images = Mapping[str, Sequence[Any]]


def read_task(data: Path, folder: Path, task: str) -> tuple[dict[str, str], Images, Images]:
    """Phrases, training images and test images of a task."""
    if task in ("digits", "surfaces"):
        drawn = digits if task == "digits" else surfaces
        train = {k: [drawn.draw(k, i) for i in range(40)] for k in drawn.PHRASES}
        test = {k: [drawn.draw(k, 40 + i) for i in range(60)] for k in drawn.PHRASES}
        return dict(drawn.PHRASES), train, test
    pack = {"cifar-10": "cifar10-fewshot", "signs": "sign-language-digits"}
    name = pack.get(task, "tiny-imagenet-fewshot")
    if not (folder / name).is_dir():
        with tarfile.open(data / f"{name}.tar") as tar:
            tar.extractall(folder, filter="data")
    labels = sorted(p.name for p in (folder / name / "train").iterdir())
    labels = labels[::10] if task == "tiny-20" else labels
    train, test = (
        {k: sorted((folder / name / part / k).iterdir()) for k in labels}
        for part in ("train", "test")
    )
    return {k: k.replace("_", " ") for k in labels}, train, test


def measure(
    method: str, phrases: Mapping[str, str], train: Images, test: Images, shots: int, seed: int
) -> tuple[float, float, float]:
    """Accuracy, calibration error and seconds of learning."""
    own = dict(phrases)
    begin = time.perf_counter()
    if method != REGRESSION:
        clf = fewclip.adapt(
            train, method=method, shots=shots, seed=seed, classes=own, val=0, progress=False
        )
        seconds = time.perf_counter() - begin
        report = clf.evaluate(test)
        return report.accuracy, report.ece, seconds
    from fewclip.data import few_shot, read

    split = few_shot(read(train, classes=own), shots=shots, val=0, seed=seed)
    clip = fewclip.zero_shot(own)
    features = clip.embed([item.image for item in split.train])
    answer = fit_reference(REGRESSION, features, np.array([item.label for item in split.train]))
    seconds = time.perf_counter() - begin
    truth = np.repeat(np.arange(len(own)), [len(test[label]) for label in split.classes])
    found = answer(clip.embed([image for label in split.classes for image in test[label]]))
    proba = np.eye(len(own))[found]
    return Report.from_predictions(proba, truth, split.classes).accuracy, float("nan"), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--shots", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| task | shots | method | accuracy | calibration error | seconds |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for task in given.tasks:
            phrases, train, test = read_task(given.data, Path(name), task)
            for shots, method in itertools.product(given.shots, given.methods):
                rows = [measure(method, phrases, train, test, shots, seed) for seed in given.seeds]
                accuracy, ece, seconds = np.mean(rows, axis=0)
                print(
                    f"| {task} | {shots} | {method} | {100 * accuracy:.1f} | {ece:.3f} | "
                    f"{seconds:.1f} |",
                    flush=True,
                )
    print(f"\nMeans of seeds {', '.join(map(str, given.seeds))}.")


if __name__ == "__main__":
    main()
