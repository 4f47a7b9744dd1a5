"""Heads of one kind on a sample: evaluated out of fold, weighed against the text, fitted on all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fewclip.heads.disk_rows import AnyRows, new_rows
from fewclip.heads.fold_outputs import FoldOutputs
from fewclip.heads.folds import assign_folds
from fewclip.heads.linear import AnyFloats, Floats, Head, Ints, row_blocks
from fewclip.heads.mixture import Mixture, fit_mixture, mean_spread
from fewclip.heads.sample import FeatureSample, Rows

# (N, L) rows, (N,) labels, (N,) image of each row -> heads on the same columns.
FitHeads = Callable[[Rows, Ints, Ints], Sequence[Head]]
MANY_CLASSES = 100
IMAGES = 512  # whose logits are computed at once


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """A head, and what it would answer for images that it has not seen.

    Attributes:
        head: in the scale of the text's logits.
        weight: lambda, its share in the answer.
        out_of_fold: of the images that were held out once, with the logits of one head, in the same
            scale.
    """

    head: Head
    weight: float
    out_of_fold: FoldOutputs

    def logits_out_of_fold(self) -> Floats:
        """(m, M) of text and head together, before any temperature."""
        mixed = self.out_of_fold.logits_itm.astype(np.float64)
        mixed *= 1 - self.weight
        mixed += self.weight * self.out_of_fold.heads[0]
        return mixed


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
    fold: Ints | None = None,
) -> FittedHead:
    """Fit heads, choose their factors out of fold, and make one head of them.

    Args:
        fold: (n,) which fold holds each image out, -1 for none; None draws `fold_count` of them.
        weight: lambda where the caller fixes it; None chooses it.
        dtype: of the rows that `fit` gets.
    """
    labels, itm = sample.labels, sample.logits_itm
    if fold is None:
        fold = assign_folds(labels, fold_count(labels, classes), rng)
    held = np.flatnonzero(fold >= 0)
    final = fit_to_views(sample, np.arange(len(labels)), fit, dtype)
    if not len(held):
        return _not_weighed(sample, final, weight, dtype)
    logits = [new_rows((len(held), classes)) for _ in final]
    for k in np.unique(fold[held]):
        own = np.flatnonzero(fold[held] == k)
        heads = fit_to_views(sample, np.flatnonzero(fold != k), fit, dtype)
        _write_logits(logits, own, heads, sample.plain(held[own], dtype))
    if len(held) < len(labels):
        itm, labels = itm[held], labels[held]
    mixture = fit_mixture(itm, logits, labels)
    chosen = mixture.weight if weight is None else weight
    folds = len(np.unique(fold[held]))
    head = mixture.absorb(final).scaled(_growth(len(fold), len(held), folds))
    return FittedHead(head, chosen, FoldOutputs(held, labels, itm, [mixture.absorb_logits(logits)]))


def fit_on_folds(
    sample: FeatureSample,
    folds: Sequence[FoldOutputs],
    fit: FitHeads,
    weight: float | None = None,
    dtype: type[np.floating[Any]] = np.float64,
) -> FittedHead:
    """`fit_stacked` for features of a tower that was tuned on these very images.

    Tuning has moved these classes further apart than those of new images, so the weight of the
    heads is fitted on outputs of towers and heads that have not seen the images.

    Args:
        folds: those outputs; without any, text and heads have half the weight each.
    """
    final = fit_to_views(sample, np.arange(len(sample.labels)), fit, dtype)
    if not folds:
        return _not_weighed(sample, final, weight, dtype)
    held, images = FoldOutputs.join(folds), len(sample.labels)
    mixture = held.mixture()
    chosen = mixture.weight if weight is None else weight
    head = mixture.absorb(final).scaled(_growth(images, len(held.images), len(folds)))
    weighed = dataclasses.replace(held, heads=[mixture.absorb_logits(held.heads)])
    return FittedHead(head, chosen, weighed)


def fit_to_views(
    sample: FeatureSample, train: Ints, fit: FitHeads, dtype: type[np.floating[Any]]
) -> Sequence[Head]:
    """Heads fitted on these images in all their views."""
    labels, views = sample.labels[train], sample.views
    return fit(sample.rows(train, dtype), np.repeat(labels, views), np.repeat(train, views))


def _not_weighed(
    sample: FeatureSample,
    final: Sequence[Head],
    weight: float | None,
    dtype: type[np.floating[Any]],
) -> FittedHead:
    """Where no image was held out, text and heads have half the weight each."""
    plain = sample.plain(dtype=dtype)
    mixture = _even(sample.logits_itm, [head(plain) for head in final])
    none, nothing = np.zeros(0, np.int64), np.zeros((0, sample.logits_itm.shape[1]), np.float32)
    chosen = mixture.weight if weight is None else weight
    return FittedHead(mixture.absorb(final), chosen, FoldOutputs(none, none, nothing, [nothing]))


def _write_logits(
    logits: Sequence[AnyRows], rows: Ints, heads: Sequence[Head], features: AnyFloats
) -> None:
    """Fill some rows of each head's logits from (n, L) features."""
    for part, head in zip(logits, heads, strict=True):
        for some in row_blocks(len(rows), IMAGES):
            part[rows[some]] = head(features[some])


def _growth(images: int, held: int, folds: int) -> float:
    """Images that the final head has for each one that a fold's head had.

    The final head deserves about that much more confidence: without this factor, scores at 4 images
    per class are too low.

    Args:
        images: of the final head; `held` of them were held out, in so many folds.
    """
    return images / (images - held / folds)


def _even(itm: AnyFloats, heads: Sequence[AnyFloats]) -> Mixture:
    """Text and heads with half the weight each, scaled to the same spread."""
    spread = [max(mean_spread(part), 1e-9) for part in (itm, *heads)]
    share = 1.0 / len(heads)
    return Mixture(1.0, tuple(share * spread[0] / s for s in spread[1:]), 0.5)
