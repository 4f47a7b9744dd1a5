"""The results of each candidate, and which one to choose. It evaluates nothing itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.bench.measure import Cost
from fewclip.heads import FeatureSample, FoldOutputs, log_loss
from fewclip.selection.candidates import Candidate

# Standard errors of the paired difference within which the one listed first is taken. What trains
# needs less: it is measured on fewer images than it will learn from, and gains more by them.
NOISE = 2.0
NOISE_TRAINED = 0.5
HOPELESS = 1.0  # standard errors behind, on the folds so far, that others will not make up
FAR = 2.0  # standard errors behind that another augmentation is not expected to make up
OUT_OF_TIME = "the budget ended first"
_Z = 1.959964  # 95 %

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Run:
    """A candidate's results on some images, from models that have not seen them.

    Attributes:
        images: (h,) their indices.
        right: (h,) whether each is answered right.
        loss: (h,) log-loss of each; NaN from what gives no probabilities.
        cost: of training and of answering.
        outputs: of what trains, because its temperature, and the weight of a head on tuned
            features, are fitted on all folds together.
    """

    images: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    loss: Floats
    cost: Cost = dataclasses.field(default_factory=Cost)
    outputs: FoldOutputs | None = None

    @classmethod
    def of_fold(cls, outputs: FoldOutputs) -> Run:
        """Without a cost; temperature, and weight of a head, are fitted on these very images."""
        logits, labels = outputs.logits(), outputs.labels
        right, loss = logits.argmax(1) == labels, log_loss(logits, labels)
        return cls(outputs.images, right, loss, outputs=outputs)


@dataclasses.dataclass(eq=False)
class Evaluated:
    """A candidate and its results so far.

    Attributes:
        loss, right: (n,) of each training image, out of fold; NaN where it was not evaluated.
        costs: of each run, what it shares with other candidates included.
        note: why it was dropped, for people.
        dropped: whether it is out of the choice.
        folds: outputs of what trains, one for each fold so far.
    """

    candidate: Candidate
    loss: Floats
    right: Floats
    costs: list[Cost] = dataclasses.field(default_factory=list)
    note: str = ""
    dropped: bool = False
    folds: list[FoldOutputs] = dataclasses.field(default_factory=list)

    @property
    def images(self) -> npt.NDArray[np.bool_]:
        return ~np.isnan(self.right)

    @property
    def accuracy(self) -> float:
        """Share of the evaluated images that were answered right; 0 if there are none."""
        return float(self.right[self.images].mean()) if self.images.any() else 0.0

    @property
    def seconds(self) -> float:
        """Mean of its runs: a fold of what trains, all folds of a head; 0 if there are none."""
        return float(np.mean([cost.seconds for cost in self.costs])) if self.costs else 0.0

    def add(self, run: Run) -> None:
        """Record a run."""
        self.costs.append(run.cost)
        if run.outputs is not None:
            self.folds.append(run.outputs)
            run = Run.of_fold(FoldOutputs.join(self.folds))
        self.loss[run.images], self.right[run.images] = run.loss, run.right

    def to_dict(self) -> dict[str, Any]:
        """A row of the card: plain JSON types."""
        n = int(self.images.sum())
        return {
            "candidate": self.candidate.name,
            "method": self.candidate.method,
            "accuracy": self.accuracy if n else None,
            "log_loss": float(self.loss[self.images].mean()) if n else None,
            "images": n,
            "seconds": round(sum(cost.seconds for cost in self.costs), 1),
            "note": self.note,
        }


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was tried and what was chosen.

    Attributes:
        budget, seconds: allowed and used.
        sample: features of the training images on the frozen backbone, to reuse in the final fit.
        folds: outputs of the one chosen, if it trains, likewise; else empty.
    """

    chosen: Candidate
    rows: tuple[Evaluated, ...]
    budget: float
    seconds: float
    sample: FeatureSample | None
    folds: tuple[FoldOutputs, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the card."""
        return {
            "chosen": self.chosen.name,
            "budget": self.budget,
            "seconds": round(self.seconds, 1),
            "rows": [row.to_dict() for row in self.rows],
        }


def training_groups(rows: Sequence[Evaluated]) -> list[list[Evaluated]]:
    """Rows of what trains, grouped by training: the one trained first, then those that share it."""
    names = {row.candidate.name for row in rows}
    return [
        [first, *(row for row in rows if row.candidate.shares == first.candidate.name)]
        for first in rows
        if first.candidate.shares not in names
    ]


def choose(rows: Sequence[Evaluated]) -> Evaluated:
    """The first candidate, in the order given, that is not behind another by more than noise.

    One that another beats in accuracy by more than chance gives way to it.
    """
    able = [row for row in rows if row.images.any() and not row.dropped] or list(rows[:1])
    best = able[0]
    for row in able[1:]:
        if behind(best, row, NOISE_TRAINED if row.candidate.trains else NOISE):
            best = row
    return _unbeaten(best, able)


def behind(one: Evaluated, other: Evaluated, noise: float) -> bool:
    """Whether `other` is ahead on the images that both were evaluated on, by more than noise.

    Args:
        noise: in standard errors of the difference.
    """
    both = one.images & other.images
    if not both.any() or one is other:
        return False
    gap = one.loss[both] - other.loss[both]
    return bool(gap.mean() > noise * gap.std() / np.sqrt(len(gap)))


def difference(one: Evaluated, other: Evaluated) -> tuple[float, float, float]:
    """(low, mean, high) of accuracy(one) - accuracy(other), 95 %, on images evaluated with both."""
    both = one.images & other.images
    n = int(both.sum())
    if n == 0:
        return -1.0, 0.0, 1.0
    gap = one.right[both] - other.right[both]
    half = _Z * math.sqrt(gap.var() / n)
    return float(gap.mean() - half), float(gap.mean()), float(gap.mean() + half)


def _unbeaten(best: Evaluated, rows: Sequence[Evaluated]) -> Evaluated:
    """`best`, or an unbeaten candidate that beats it by more than chance on the images of both."""
    passed = {best.candidate.name}
    while better := next(
        (r for r in rows if r.candidate.name not in passed and difference(r, best)[0] > 0), None
    ):
        best = better
        passed.add(best.candidate.name)
    return best
