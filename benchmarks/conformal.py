"""Prediction sets: how often the truth is in them, and how long they are. Prints Markdown tables.

    python -m benchmarks.conformal [DATA]

DATA holds the photo archives (default: shared/data beside the project). On four tasks a logistic
regression learns from 16 photos a class, on the features of `micro`. The other photos are divided
100 times at random into 500 to calibrate on (on Tiny ImageNet, 1000) and the rest to test on.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import fewclip
from fewclip import conformal
from fewclip.contract import ConformalScores, HeadSpec
from fewclip.data import read_labelled
from fewclip.samples import surfaces

SHOTS = 16
SPLITS = 100
COVERAGES = (0.8, 0.9, 0.95)
PACKS = ("cifar10-fewshot", "sign-language-digits", "tiny-imagenet-fewshot")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Task(NamedTuple):
    """Photos that a model did not learn from: (N, M) probabilities and (N,) classes."""

    name: str
    proba: Floats
    truth: Ints
    calibration: int


def tasks(data: Path, folder: Path) -> Iterator[Task]:
    """The four tasks, one after the other."""
    for pack in PACKS:
        with tarfile.open(data / f"{pack}.tar") as tar:
            tar.extractall(folder, filter="data")
        names = sorted(p.name for p in (folder / pack / "train").iterdir())
        images, labels = [], []
        for split in ("train", "test"):
            items, _ = read_labelled(folder / pack, names, split=split)
            images += [item.image for item in items]
            labels += [item.label for item in items]
        clf = fewclip.zero_shot(names)
        yield _task(pack, clf.embed(images), np.array(labels))
    drawn = [(surfaces.draw(c, seed), i) for seed in range(200) for i, c in enumerate(LABELS)]
    clf = fewclip.zero_shot(surfaces.PHRASES)
    yield _task("surfaces", clf.embed([d[0] for d in drawn]), np.array([d[1] for d in drawn]))


LABELS = tuple(surfaces.PHRASES)


def _task(name: str, features: npt.NDArray[np.float32], labels: Ints) -> Task:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    own = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    train = np.concatenate([rng.permutation(each)[:SHOTS] for each in own])
    rest = np.setdiff1d(np.arange(len(labels)), train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=100.0, max_iter=500).fit(features[train], labels[train])
    proba = model.predict_proba(features[rest])
    return Task(name, proba, labels[rest], 1000 if len(own) > 100 else 500)


def raps(proba: Floats, penalty: float = 0.02, free: int = 5) -> Floats:
    """APS's scores plus a cost per rank past the first `free`: (N, M)."""
    ranks = (-proba).argsort(1, kind="stable").argsort(1)
    return conformal.scores(proba) + penalty * np.maximum(ranks + 1 - free, 0)


def measured(task: Task, values: Floats, coverage: float) -> Floats:
    """(SPLITS, 3): coverage, mean size and longest set of each split by scores (N, M)."""
    m = task.proba.shape[1]
    head = HeadSpec(logit_scale=1.0, columns=tuple(range(m)))
    rows = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(task.truth))
        one, two = order[: task.calibration], order[task.calibration :]
        own = values[one, task.truth[one]]
        by_class = tuple(tuple(np.sort(own[task.truth[one] == c])) for c in range(m))
        learned = ConformalScores(kind="split", scores=by_class)
        bounds = conformal.check_coverage(learned, head, coverage)
        inside = values[two] <= bounds
        sizes = inside.sum(1)
        hit = inside[np.arange(len(two)), task.truth[two]].mean()
        rows.append((hit, sizes.mean(), sizes.max()))
    return np.array(rows)


def band(task: Task, coverage: float) -> tuple[float, float]:
    """Where the mean of SPLITS splits lies with 99 % probability if coverage is exact.

    One split's coverage varies by its calibration and by its test photos. The splits share photos,
    so their mean is given the band of a single split.
    """
    n, rest = task.calibration, len(task.truth) - task.calibration
    spread = np.sqrt(coverage * (1 - coverage) * (1 / n + 1 / rest))
    return coverage - 2.58 * spread, coverage + 1 / (n + 1) + 2.58 * spread


def main(data: Path) -> None:
    print(
        "| task | right | asked | covered (5 to 95 % of splits) | band | size | longest |", end=""
    )
    print(" RAPS: covered | size | longest |\n|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(data, Path(folder)):
            right = (task.proba.argmax(1) == task.truth).mean()
            for coverage in COVERAGES:
                aps = measured(task, conformal.scores(task.proba), coverage)
                other = measured(task, raps(task.proba), coverage)
                low, high = np.quantile(aps[:, 0], [0.05, 0.95])
                from_, to = band(task, coverage)
                print(
                    f"| {task.name} | {right:.1%} | {coverage:.0%} | {aps[:, 0].mean():.1%} "
                    f"({low:.1%} to {high:.1%}) | {from_:.1%} to {to:.1%} | "
                    f"{aps[:, 1].mean():.2f} | {aps[:, 2].mean():.0f} | "
                    f"{other[:, 0].mean():.1%} | {other[:, 1].mean():.2f} | "
                    f"{other[:, 2].mean():.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    words = sys.argv[1:]
    main(Path(words[0]) if words else Path(__file__).parents[2] / "shared" / "data")
