"""Heads of one kind on a sample: evaluated out of fold, weighed against the text, fitted on all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewclip.heads.disk_rows import AnyRows, new_rows
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
    """A head and its out-of-fold logits.

    Attributes:
        head: in the scale of the text's logits.
        weight: lambda, its share in the answer.
        images: (m,) indices of the sample's images that were held out once.
        logits: (m, M) of those images, from heads fitted without them, in the same scale.
        logits_itm: (m, M) of the text for them, from towers that were not tuned on them.
    """

    head: Head
    weight: float
    images: Ints
    logits: NDArray[np.float32]
    logits_itm: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class FoldOutputs:
    """Outputs for the images that a fold holds out, from a model tuned on the others.

    Attributes:
        images, labels: (h,) indices of these images, and their classes.
        logits_itm: (h, M) of the text; without heads, log-probabilities before any temperature.
        heads: (h, M) logits of each head on the tower's features.
        ood_terms: (h, C) or (h, 1) each, of the OOD score fitted with the tower; empty if unknown.
    """

    images: Ints
    labels: Ints
    logits_itm: NDArray[np.float32]
    heads: Sequence[NDArray[np.float32]]
    ood_terms: Mapping[str, Floats] = dataclasses.field(default_factory=dict)

    @classmethod
    def join(cls, folds: Sequence[FoldOutputs]) -> FoldOutputs:
        """Several folds as one."""
        return cls(
            np.concatenate([fold.images for fold in folds]),
            np.concatenate([fold.labels for fold in folds]),
            np.concatenate([fold.logits_itm for fold in folds]),
            [np.concatenate(parts) for parts in zip(*(f.heads for f in folds), strict=True)],
            {
                name: np.concatenate([fold.ood_terms[name] for fold in folds])
                for name in folds[0].ood_terms
                if all(name in fold.ood_terms for fold in folds)
            },
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """By name, for `from_arrays`."""
        parts: dict[str, NDArray[Any]] = {"images": self.images, "labels": self.labels}
        heads = {f"head.{k}": part for k, part in enumerate(self.heads)}
        terms = {f"ood.{name}": term for name, term in self.ood_terms.items()}
        return {**parts, "logits_itm": self.logits_itm, **heads, **terms}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FoldOutputs:
        """From `to_arrays`.

        Raises:
            KeyError: one is missing.
        """
        heads = [arrays[name] for name in arrays if name.startswith("head.")]
        terms = {k.removeprefix("ood."): x for k, x in arrays.items() if k.startswith("ood.")}
        return cls(arrays["images"], arrays["labels"], arrays["logits_itm"], heads, terms)

    def mixture(self) -> Mixture:
        """The factors that suit these images best.

        The priors are those for a text that knows nothing, because the heads know what it does:
        both read features of the tower that was tuned with it.
        """
        return fit_mixture(self.logits_itm, self.heads, self.labels, knowledge=0.0)

    def logits(self) -> Floats:
        """(h, M) of the text and the heads together, calibrated."""
        return self.mixture().logits(self.logits_itm, self.heads)


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
    return FittedHead(head, chosen, held, mixture.absorb_logits(logits), itm)


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
    logits = mixture.absorb_logits(held.heads)
    return FittedHead(head, chosen, held.images, logits, held.logits_itm)


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
    none = np.zeros((0, sample.logits_itm.shape[1]), np.float32)
    chosen = mixture.weight if weight is None else weight
    return FittedHead(mixture.absorb(final), chosen, np.zeros(0, np.int64), none, none)


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
