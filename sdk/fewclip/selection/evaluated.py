"""The results of each candidate, and which one to choose. It evaluates nothing itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.heads import FeatureSample
from fewclip.selection.candidates import Candidate

NOISE = 0.5  # standard errors of the paired difference within which the one listed first is taken
FAR = 2.0  # standard errors behind that another augmentation is not expected to make up

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass
class Evaluated:
    """A candidate and its results so far.

    Attributes:
        loss, right: (n,) of each training image, out of fold; NaN where it was not evaluated.
        seconds: spent on it.
        note: why it was dropped, for people.
        dropped: whether it is out of the choice.
    """

    candidate: Candidate
    loss: Floats
    right: Floats
    seconds: float = 0.0
    note: str = ""
    dropped: bool = False

    @property
    def images(self) -> npt.NDArray[np.bool_]:
        return ~np.isnan(self.loss)

    def to_dict(self) -> dict[str, Any]:
        """A row of the card: plain JSON types."""
        n = int(self.images.sum())
        return {
            "candidate": self.candidate.name,
            "method": self.candidate.method,
            "accuracy": float(self.right[self.images].mean()) if n else None,
            "log_loss": float(self.loss[self.images].mean()) if n else None,
            "images": n,
            "seconds": round(self.seconds, 1),
            "note": self.note,
        }


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was tried and what was chosen.

    Attributes:
        budget, seconds: allowed and used.
        sample: features of the training images on the frozen backbone, to reuse in the final fit.
    """

    chosen: Candidate
    rows: tuple[Evaluated, ...]
    budget: float
    seconds: float
    sample: FeatureSample | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the card."""
        return {
            "chosen": self.chosen.name,
            "budget": self.budget,
            "seconds": round(self.seconds, 1),
            "rows": [row.to_dict() for row in self.rows],
        }


def choose(rows: Sequence[Evaluated]) -> Evaluated:
    """The first candidate, in the order given, that is not behind another by more than noise."""
    able = [row for row in rows if row.images.any() and not row.dropped] or list(rows[:1])
    best = able[0]
    for row in able[1:]:
        if behind(best, row):
            best = row
    return best


def behind(one: Evaluated, other: Evaluated, noise: float = NOISE) -> bool:
    """Whether `other` is ahead on the images that both were evaluated on, by more than noise.

    Args:
        noise: in standard errors of the difference.
    """
    both = one.images & other.images
    if not both.any() or one is other:
        return False
    gap = one.loss[both] - other.loss[both]
    return bool(gap.mean() > noise * gap.std() / np.sqrt(len(gap)))
