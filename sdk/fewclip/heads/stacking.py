"""Heads of one kind on a sample: evaluated out of fold, weighed against the text, fitted on all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from fewclip.heads.blas import one_blas_thread
from fewclip.heads.folds import assign_folds
from fewclip.heads.linear import Floats, Head, Ints
from fewclip.heads.mixture import Mixture, fit_mixture
from fewclip.heads.sample import FeatureSample

# (N, L) rows, (N,) labels, (N,) image of each row -> heads on the same columns.
FitHeads = Callable[[Floats, Ints, Ints], Sequence[Head]]
MANY_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """A head and its out-of-fold logits.

    Attributes:
        head: in the scale of the text's logits.
        weight: lambda, its share in the answer.
        images: (m,) indices of the sample's images that were held out once.
        logits: (m, M) what heads fitted without these images say of them, in the same scale.
    """

    head: Head
    weight: float
    images: Ints
    logits: Floats


def fold_count(labels: Ints, classes: int) -> int:
    """As many folds as a class has images, up to 8; 4 from 100 classes on."""
    most = int(np.bincount(labels, minlength=classes).max())
    return max(2, min(most, 4 if classes >= MANY_CLASSES else 8))


@one_blas_thread
def fit_stacked(
    sample: FeatureSample,
    classes: int,
    fit: FitHeads,
    rng: np.random.Generator,
    weight: float | None = None,
) -> FittedHead:
    """Fit heads, choose their factors out of fold, and make one head of them.

    Args:
        weight: lambda where the caller fixes it; None chooses it.
    """
    x, labels = sample.joined(), sample.labels

    def heads_of(train: Ints) -> Sequence[Head]:
        views = x.shape[1]
        rows = x[train].reshape(-1, x.shape[2])
        return fit(rows, np.repeat(labels[train], views), np.repeat(train, views))

    fold = assign_folds(labels, fold_count(labels, classes), rng)
    held = np.flatnonzero(fold >= 0)
    final = heads_of(np.arange(len(labels)))
    logits = np.zeros((len(final), len(labels), classes))
    for k in np.unique(fold[held]):
        own = fold == k
        for row, head in zip(logits, heads_of(np.flatnonzero(~own)), strict=True):
            row[own] = head(x[own, 0])
    itm = np.asarray(sample.logits_itm, np.float64)
    if not len(held):
        mixture = _even(itm, [head(x[:, 0]) for head in final])
        chosen = mixture.weight if weight is None else weight
        return FittedHead(mixture.absorb(final), chosen, held, np.zeros((0, classes)))
    unseen = [row[held] for row in logits]
    mixture = fit_mixture(itm[held], unseen, labels[held])
    chosen = mixture.weight if weight is None else weight
    head = mixture.absorb(final).scaled(_growth(fold))
    return FittedHead(head, chosen, held, mixture.absorb_logits(unseen))


def _growth(fold: Ints) -> float:
    """Images that the final head has for each one that a fold's head had.

    It is surer of itself by about as much: without this factor scores at 4 images a class are too
    low.
    """
    folds = len(np.unique(fold[fold >= 0]))
    return folds / (folds - 1)


def _even(itm: Floats, heads: Sequence[Floats]) -> Mixture:
    """Text and heads with one half of the answer each, brought to one spread."""
    spread = [max(float(part.std(1).mean()), 1e-9) for part in (itm, *heads)]
    share = 1.0 / len(heads)
    return Mixture(1.0, tuple(share * spread[0] / s for s in spread[1:]), 0.5)
