"""Two models' outputs on the same images: how far apart, and whether it matters. Numbers only."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip import decide
from fewclip.contract import Card

NEAR_TIE = 1e-3  # in logits, and in the score behind `known`, in units of its validation spread

Numbers = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class ModelRun:
    """Model outputs for N images, and the card that turns them into answers."""

    card: Card
    found: decide.ModelOutputs

    def replaced(self, rows: slice, other: ModelRun) -> ModelRun:
        """This run with the outputs of some images replaced by those of a run on them alone."""
        found = copy.deepcopy(self.found)
        for column, new in zip(found, other.found, strict=True):
            if column is not None:
                column[rows] = new
        return ModelRun(self.card, found)

    def difference(self, other: ModelRun) -> float:
        """Largest absolute logit difference over all heads; not finite if any logit is not."""
        pairs = [(self.found.logits_itm, other.found.logits_itm)]
        if self.found.logits_cat is not None:
            assert other.found.logits_cat is not None
            pairs.append((self.found.logits_cat, other.found.logits_cat))
        assert all(one.shape == two.shape for one, two in pairs)
        return max(float(np.abs(one - two).max()) for one, two in pairs)

    def same_class(self, others: Sequence[ModelRun]) -> tuple[float, int]:
        """Share of images with the same best class in every run, and the number of near ties.

        Near ties (this run's two best classes within `NEAR_TIE`) are left out of the share.
        """
        proba = self._probabilities()
        if proba.shape[1] < 2:
            return 1.0, 0
        second, first = np.sort(proba, axis=1)[:, -2:].T
        tiny = np.finfo(np.float64).tiny
        clear = np.log(first) - np.log(np.maximum(second, tiny)) >= NEAR_TIE
        best = self._best()
        same = np.all([other._best() == best for other in others], axis=0)
        return _share(same, clear), int((~clear).sum())

    def same_known(self, others: Sequence[ModelRun]) -> float:
        """Share of images on which every run agrees about `known`; near ties are left out."""
        threshold = self.card.calibration.threshold
        if threshold is None or self.found.ood_score is None:
            return 1.0
        score = self._known_score()
        known = score >= threshold
        same = np.all([(o._known_score() >= threshold) == known for o in others], axis=0)
        return _share(same, np.abs(score - threshold) >= NEAR_TIE)

    def accuracy_change(self, other: ModelRun, labels: npt.NDArray[np.int64]) -> float | None:
        """Accuracy of `other` minus this run's, None without labels; labels (N,), -1 if unknown."""
        chosen = labels >= 0
        if not chosen.any():
            return None
        mine, its = ((side._best() == labels)[chosen].mean() for side in (self, other))
        return float(its - mine)

    def _probabilities(self) -> npt.NDArray[np.float64]:
        return decide.probabilities(*self.found[:2], self.card.head)

    def _best(self) -> Numbers:
        best: Numbers = self._probabilities().argmax(axis=1)
        return best

    def _known_score(self) -> npt.NDArray[np.float64]:
        head, calibration = self.card.head, self.card.calibration
        itm, cat, ood_score, named_bound = self.found
        assert ood_score is not None
        return decide.in_distribution_score(itm, cat, head, calibration, ood_score, named_bound)


def _share(same: Numbers, counted: Numbers) -> float:
    return float(same[counted].mean()) if counted.any() else 1.0
