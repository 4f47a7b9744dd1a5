"""What accuracy methods reach on photos like a user's own. Prints a Markdown table.

    python -m benchmarks.own_data [DATA] [--methods gda linear-probe ...] [--shots 4 8 16]
                                  [--seeds 1 2 3] [--tasks cifar-10 signs digits surfaces tiny-20]
                                  [--new] [--budget SECONDS]

DATA holds the photo archives (default: shared/data beside the project). Trained on training
photos, measured once on test photos, which took no part in any choice. "features + LR" is what most
people would do instead: scikit-learn's logistic regression on CLIP's image features, C by
cross-validation. With --new only the first half of the classes is learned, and the accuracy is that
on the test photos of the other half, which are known by name alone. --budget is that of "auto", for
a busy machine: its default assumes an idle one.
"""

from __future__ import annotations

import argparse
import itertools
import tarfile
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fewclip
from fewclip import decide
from fewclip.report import Report
from fewclip.samples import digits, surfaces
from fewclip.selection.baselines import REGRESSION, fit_reference

METHODS = ("zero-shot", REGRESSION, "gda", "linear-probe")
TASKS = ("cifar-10", "signs", "digits", "surfaces", "tiny-20")
EVERY = {"tiny-20": 10, "tiny-40": 5, "tiny-200": 1}  # which classes of Tiny ImageNet
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
    labels = labels[:: EVERY.get(task, 1)]
    train, test = (
        {k: sorted((folder / name / part / k).iterdir()) for k in labels}
        for part in ("train", "test")
    )
    return {k: k.replace("_", " ") for k in labels}, train, test


class Task:
    """A task's photos; the test photos pass through the frozen image tower once for all methods."""

    def __init__(self, phrases: Mapping[str, str], train: Images, test: Images) -> None:
        self.phrases, self.train, self.test = dict(phrases), train, test

    def truth(self, classes: Sequence[str]) -> np.ndarray:
        """(n,) the index in `classes` of each test photo."""
        return np.array([classes.index(label) for label in self.phrases for _ in self.test[label]])

    @cached_property
    def encoded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(n, D) features and (n, 5 w) intermediate ones of the frozen backbone."""
        images = [image for label in self.phrases for image in self.test[label]]
        parts = list(fewclip.zero_shot(self.phrases).encoded(images))
        features, middle = zip(*parts, strict=True)
        return torch.cat(features), None if middle[0] is None else torch.cat(middle)

    def halves(self) -> tuple[Task, Task]:
        """The first half of the classes and the rest."""
        labels = list(self.phrases)
        half = (len(labels) + 1) // 2
        first, rest = (
            Task({k: self.phrases[k] for k in some}, self.train, {k: self.test[k] for k in some})
            for some in (labels[:half], labels[half:])
        )
        return first, rest

    def report(self, clf: fewclip.Classifier) -> Report:
        """The report of a classifier for these classes, on the test photos."""
        if clf.method.trains_images:
            return clf.evaluate(self.test)
        outputs = clf.outputs_of(*self.encoded)
        proba = decide.probabilities(
            outputs.logits_itm, outputs.logits_cat, clf.card.head, clf.card.temperature
        )
        return Report.from_predictions(proba, self.truth(clf.classes), clf.classes)


def measure(
    method: str, task: Task, shots: int, seed: int, budget: float | None
) -> tuple[float, float, float, str]:
    """Accuracy, calibration error and seconds of learning, and what "auto" chose."""
    begin = time.perf_counter()
    if method == REGRESSION:
        return measure_regression(task, shots, seed)
    clf = learn(method, task, shots, seed, budget)
    seconds = time.perf_counter() - begin
    report = task.report(clf)
    chosen = clf.card.training.get("selection", {}).get("chosen", "")
    return report.accuracy, report.ece, seconds, chosen


def measure_new(
    method: str, task: Task, shots: int, seed: int, budget: float | None
) -> tuple[float, float, float, str]:
    """`measure` on classes that are known by name alone."""
    old, new = task.halves()
    begin = time.perf_counter()
    clf = learn(method, old, shots, seed, budget)
    seconds = time.perf_counter() - begin
    chosen = clf.card.training.get("selection", {}).get("chosen", "")
    report = new.report(clf.with_classes(new.phrases))
    return report.accuracy, report.ece, seconds, chosen


def learn(
    method: str, task: Task, shots: int, seed: int, budget: float | None
) -> fewclip.Classifier:
    """Adapt as a user would who keeps no photos out of training."""
    train = {label: task.train[label] for label in task.phrases}
    return fewclip.adapt(
        train,
        method=method,
        budget=budget,
        shots=shots,
        seed=seed,
        classes=task.phrases,
        val=0,
        progress=False,
    )


def measure_regression(task: Task, shots: int, seed: int) -> tuple[float, float, float, str]:
    """scikit-learn's logistic regression on the output features."""
    from fewclip.data import few_shot, read

    begin = time.perf_counter()
    split = few_shot(read(task.train, classes=task.phrases), shots=shots, val=0, seed=seed)
    features = fewclip.zero_shot(task.phrases).embed([item.image for item in split.train])
    answer = fit_reference(REGRESSION, features, np.array([item.label for item in split.train]))
    seconds = time.perf_counter() - begin
    output = torch.nn.functional.normalize(task.encoded[0].float(), dim=1)
    proba = np.eye(len(task.phrases))[answer(output.cpu().numpy())]
    report = Report.from_predictions(proba, task.truth(split.classes), split.classes)
    return report.accuracy, float("nan"), seconds, ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=[*TASKS, *list(EVERY)[1:]])
    parser.add_argument("--shots", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--new", action="store_true", help="on classes known by name alone")
    parser.add_argument("--budget", type=float)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    run = measure_new if given.new else measure
    print("| task | shots | method | accuracy | calibration error | seconds | chosen |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for each in given.tasks:
            task = Task(*read_task(given.data, Path(name), each))
            for shots, method in itertools.product(given.shots, given.methods):
                rows = [run(method, task, shots, seed, given.budget) for seed in given.seeds]
                accuracy, ece, seconds = np.mean([row[:3] for row in rows], axis=0)
                chosen = ", ".join(sorted({row[3] for row in rows}))
                print(
                    f"| {each} | {shots} | {method} | {100 * accuracy:.1f} | {ece:.3f} | "
                    f"{seconds:.1f} | {chosen} |",
                    flush=True,
                )
    print(f"\nMeans of seeds {', '.join(map(str, given.seeds))}.")


if __name__ == "__main__":
    main()
