"""Heads of one kind on a sample: evaluated out of fold, weighed against the text, fitted on all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewclip.heads.disk_rows import AnyRows, new_rows
from fewclip.heads.folds import assign_folds
from fewclip.heads.linear import AnyFloats, Head, Ints, row_blocks
from fewclip.heads.mixture import Mixture, fit_mixture, mean_spread
from fewclip.heads.sample import FeatureSample, Rows

# (N, L) rows, (N,) labels, (N,) image of each row -> heads on the same columns.
FitHeads = Callable[[Rows, Ints, Ints], Sequence[Head]]
MANY_CLASSES = 100
IMAGES = 512  # whose logits are computed at once


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """A head and its out-of-fold logits.

    Attributes:
        head: in the scale of the text's logits.
        weight: lambda, its share in the answer.
        images: (m,) indices of the sample's images that were held out once.
        logits: (m, M) of those images, from heads fitted without them, in the same scale.
    """

    head: Head
    weight: float
    images: Ints
    logits: NDArray[np.float32]


def fold_count(labels: Ints, classes: int) -> int:
    """As many folds as the largest class has images, 2 to 8; at most 4 from 100 classes on."""
    most = int(np.bincount(labels, minlength=classes).max())
    return max(2, min(most, 4 if classes >= MANY_CLASSES else 8))


def fit_stacked(
    sample: FeatureSample,
    classes: int,
    fit: FitHeads,
    rng: np.random.Generator,
    weight: float | None = None,
    dtype: type[np.floating[Any]] = np.float64,
) -> FittedHead:
    """Fit heads, choose their factors out of fold, and make one head of them.

    Args:
        weight: lambda where the caller fixes it; None chooses it.
        dtype: of the rows that `fit` gets.
    """
    labels, itm = sample.labels, sample.logits_itm
    fold = assign_folds(labels, fold_count(labels, classes), rng)
    held = np.flatnonzero(fold >= 0)
    final = _fitted(sample, np.arange(len(labels)), fit, dtype)
    if not len(held):
        mixture = _even(itm, [head(sample.plain(dtype=dtype)) for head in final])
        chosen = mixture.weight if weight is None else weight
        return FittedHead(mixture.absorb(final), chosen, held, np.zeros((0, classes), np.float32))
    logits = [new_rows((len(held), classes)) for _ in final]
    for k in np.unique(fold[held]):
        own = np.flatnonzero(fold[held] == k)
        heads = _fitted(sample, np.flatnonzero(fold != k), fit, dtype)
        _write_logits(logits, own, heads, sample.plain(held[own], dtype))
    if len(held) < len(labels):
        itm, labels = itm[held], labels[held]
    mixture = fit_mixture(itm, logits, labels)
    chosen = mixture.weight if weight is None else weight
    head = mixture.absorb(final).scaled(_growth(fold))
    return FittedHead(head, chosen, held, mixture.absorb_logits(logits))


def _fitted(
    sample: FeatureSample, train: Ints, fit: FitHeads, dtype: type[np.floating[Any]]
) -> Sequence[Head]:
    """Heads fitted on these images in all their views."""
    labels, views = sample.labels[train], sample.views
    return fit(sample.rows(train, dtype), np.repeat(labels, views), np.repeat(train, views))


def _write_logits(
    logits: Sequence[AnyRows], rows: Ints, heads: Sequence[Head], features: AnyFloats
) -> None:
    """Fill some rows of each head's logits from (n, L) features."""
    for part, head in zip(logits, heads, strict=True):
        for some in row_blocks(len(rows), IMAGES):
            part[rows[some]] = head(features[some])


def _growth(fold: Ints) -> float:
    """Images that the final head has for each one that a fold's head had.

    The final head deserves about that much more confidence: without this factor, scores at 4 images
    per class are too low.
    """
    folds = len(np.unique(fold[fold >= 0]))
    return folds / (folds - 1)


def _even(itm: AnyFloats, heads: Sequence[AnyFloats]) -> Mixture:
    """Text and heads with half the weight each, scaled to the same spread."""
    spread = [max(mean_spread(part), 1e-9) for part in (itm, *heads)]
    share = 1.0 / len(heads)
    return Mixture(1.0, tuple(share * spread[0] / s for s in spread[1:]), 0.5)
