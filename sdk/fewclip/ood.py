"""How much an image resembles the training images: one OOD score. No torch, no answer.

Scores fail on different out-of-distribution images, so several are combined:

- similarity to the nearest training images of the class (Sun, Ming, Zhu, Li, "Out-of-Distribution
  Detection with Deep Nearest Neighbors", ICML 2022, arXiv 2204.06507), in the output features and
  in patch-token statistics from the middle of the image tower;
- Mahalanobis distance to the class mean (Lee, Lee, Lee, Shin, "A Simple Unified Framework for
  Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018, arXiv 1807.03888) in
  the output features, under one shrunk covariance;
- Mahalanobis distance to all training images along their few principal directions, in patch-token
  statistics from the lower half of the tower: no class, but how strokes, colours and textures vary.
  Along all directions a few dozen images say little; along ten they say it exactly.

Each is standardized by its values on own images left out of the fit. They are added class by class
in three groups (all that know classes; those of the output features; those that know none), the
best class counts, and of the standardized groups the worst: an image must pass every one. Nothing
is fitted on out-of-distribution images. Training draws a tower's features together: a tuned tower
is standardized by own images that it was not trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SHRINKAGE = 0.1  # of the covariance, towards equal variance in all directions
NEIGHBOURS = 5
MOST_IMAGES = 8192  # training images kept; of more, every class keeps its share
MOST_DIRECTIONS = 10  # principal directions
IMAGES_A_DIRECTION = 8  # at least, or the spread along it is a guess
FOLDS = 16
MANY_IMAGES = 1024  # from here on ten directions fit an image no better for having seen it

Floats = npt.NDArray[np.float64]
AnyFloats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

_ARRAYS = ("labels", "whiten", "means", "center", "spread", "group_center", "group_spread")
_TUPLES = ("images", "principal_mean", "principal_axes")  # one array for each part

NEAREST_PARTS = 3  # parts with nearest images: output features, mean and deviation, maximum
_PRINCIPAL = (2, 3)  # parts with principal directions: maximum, mean at a quarter


def unit(x: AnyFloats) -> Floats:
    """(..., w) -> float64 of length 1 along the last axis."""
    y = np.asarray(x, np.float64)
    length: Floats = np.maximum(np.linalg.norm(y, axis=-1, keepdims=True), 1e-12)
    return y / length


def ood_parts(features: AnyFloats, intermediate: AnyFloats | None) -> tuple[Floats, ...]:
    """What the score compares, each part L2-normalised.

    Args:
        features: (B, D) output features.
        intermediate: (B, 5 w) of `Backbone.image_features_and_intermediate`: mean patch tokens at a
            quarter, half and three quarters of the tower, then their standard deviation and
            maximum at half. None for a tower without residual blocks.

    Returns:
        (B, D); with intermediate also (B, 2 w) mean and deviation and (B, w) maximum at half, and
        (B, w) mean at a quarter.
    """
    if intermediate is None:
        return (unit(features),)
    low, mean, _, deviation, peak = np.split(np.asarray(intermediate, np.float64), 5, axis=1)
    middle = np.concatenate([mean, deviation], axis=1)
    return unit(features), unit(middle), unit(peak), unit(low)


@dataclasses.dataclass(frozen=True)
class OODScore:
    """Training images as a model keeps them.

    Terms, each (B, C) or (B, 1): similarity to the nearest images of a class in every part but the
    last, Mahalanobis distance in the output features, principal distances.

    Attributes:
        images: per part (N, L_p) float16, L2-normalised; part 0 is the output features.
        labels: (N,) class of each image, the head's column.
        whiten, means: (D, D) and (C, D) float32: squared distances of whitened rows to the whitened
            class means are Mahalanobis distances over D.
        principal_mean, principal_axes: per part with principal directions (w,) and (K, w) float32,
            axes over the deviation along them; none without intermediate features or with too few
            images.
        center, spread: (T,) mean and deviation of each term over own images.
        group_center, group_spread: (G,) of each group's score over own images.
        own: scores of own images that the score has not seen; empty where none are to be had.
    """

    images: tuple[npt.NDArray[np.float16], ...]
    labels: Ints
    whiten: npt.NDArray[np.float32]
    means: npt.NDArray[np.float32]
    principal_mean: tuple[npt.NDArray[np.float32], ...]
    principal_axes: tuple[npt.NDArray[np.float32], ...]
    center: Floats
    spread: Floats
    group_center: Floats
    group_spread: Floats
    own: Floats = dataclasses.field(default_factory=lambda: np.zeros(0))

    @classmethod
    def fit(
        cls,
        parts: Sequence[AnyFloats],
        labels: npt.NDArray[Any],
        *,
        tuned: Sequence[AnyFloats] | None = None,
    ) -> OODScore:
        """Learn from `ood_parts` of N >= 1 images and their classes (N,).

        Args:
            tuned: for an image tower that was trained on those images: `ood_parts` of own images
                that it was not trained on. It has drawn its own images together, so that only
                others show how far own images spread.
        """
        kept = _share(np.asarray(labels, np.int64))
        own_labels = np.asarray(labels, np.int64)[kept]
        images = tuple(np.asarray(part, np.float16)[kept] for part in parts[:NEAREST_PARTS])
        _, index = np.unique(own_labels, return_inverse=True)
        distances, whiten, means = _leave_one_out(np.asarray(parts[0], np.float64)[kept], index)
        several = len(parts) > 1 and len(kept) >= 2 * IMAGES_A_DIRECTION
        spread_out = [np.asarray(parts[k], np.float64)[kept] for k in _PRINCIPAL if several]
        axes = [_principal(part) for part in spread_out]
        terms = len(images) + 1 + len(axes)
        groups = len(_groups(len(images), len(axes)))
        raw = cls(
            images,
            own_labels,
            whiten,
            means,
            tuple(mean for mean, _ in axes),
            tuple(directions for _, directions in axes),
            *(np.zeros(terms), np.ones(terms)),
            *(np.zeros(groups), np.ones(groups)),
        )
        if tuned is not None and len(tuned[0]) > 1:
            return raw._standardized(raw._terms(tuned))
        near = [_others_nearest(part, index) for part in images]
        principal = [_principal_out_of_fold(part, index) for part in spread_out]
        return raw._standardized([*near, _similarity(distances), *principal])

    def score(
        self, parts: Sequence[AnyFloats], classes: Sequence[int] | None = None
    ) -> npt.NDArray[np.float64]:
        """(B,) float64, higher is more like the training images.

        Args:
            parts: `ood_parts` of B images.
            classes: columns of the trained classes that are still there; None for all. With none
                of them left every image scores -inf.
        """
        kept = None if classes is None else np.isin(np.unique(self.labels), classes)
        scores = self._group_scores(self._terms(parts), kept)
        standard = (scores - self.group_center[:, None]) / self.group_spread[:, None]
        worst: Floats = standard.min(0)
        return worst

    def _terms(self, parts: Sequence[AnyFloats]) -> list[Floats]:
        """T terms, (B, C) or (B, 1) each."""
        names, index = np.unique(self.labels, return_inverse=True)
        terms = []
        for part, images in zip(parts, self.images, strict=False):
            similar = np.asarray(part, np.float64) @ images.astype(np.float64).T
            terms.append(_nearest(similar, index, len(names)))
        whitened = np.asarray(parts[0], np.float64) @ self.whiten.astype(np.float64)
        terms.append(_similarity(_squares(whitened, self.means.astype(np.float64))))
        axes = zip(_PRINCIPAL, self.principal_mean, self.principal_axes, strict=False)
        return terms + [_along(np.asarray(parts[k], np.float64), m, a) for k, m, a in axes]

    def _group_scores(
        self, terms: Sequence[Floats], kept: npt.NDArray[np.bool_] | None = None
    ) -> Floats:
        """(G, B): in each group the standardized terms are added class by class; best class."""
        scales = zip(terms, self.center, self.spread, strict=True)
        standard = np.stack(
            [np.broadcast_to((term - c) / s, terms[0].shape) for term, c, s in scales]
        )  # (T, B, C)
        if kept is not None:
            standard = standard[:, :, kept]
        groups = _groups(len(self.images), len(self.principal_mean))
        joint = np.stack([standard[group].sum(0) for group in groups])
        best: Floats = joint.max(2, initial=-np.inf)
        return best

    def _standardized(self, terms: Sequence[Floats]) -> OODScore:
        """The same with scales, and `own`, from the terms of own images that it has not seen."""
        best = [term.max(1) for term in terms]
        center, spread = _scales([values[np.isfinite(values)] for values in best])
        scaled = dataclasses.replace(self, center=center, spread=spread)
        scores = scaled._group_scores(terms)
        scores = scores[:, np.isfinite(scores).all(0)]
        center, spread = _scales(list(scores))
        own = ((scores - center[:, None]) / spread[:, None]).min(0)
        return dataclasses.replace(scaled, group_center=center, group_spread=spread, own=own)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything `score` needs, by name, for a model file."""
        arrays: dict[str, npt.NDArray[Any]] = {f"ood_{k}": getattr(self, k) for k in _ARRAYS}
        for name in _TUPLES:
            arrays |= {f"ood_{name}_{k}": part for k, part in enumerate(getattr(self, name))}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> OODScore | None:
        """`to_arrays` read back; None where there are none of them.

        Raises:
            KeyError, ValueError: an array is missing, or its shape does not fit the others.
        """
        if not any(name.startswith("ood_images_") for name in arrays):
            return None
        fields: dict[str, Any] = {name: _numbered(arrays, f"ood_{name}_") for name in _TUPLES}
        fields |= {name: arrays[f"ood_{name}"] for name in _ARRAYS}
        found = cls(**fields)
        found._check_shapes()
        return found

    def _check_shapes(self) -> None:
        n, classes = len(self.labels), len(np.unique(self.labels))
        terms = len(self.images) + 1 + len(self.principal_mean)
        groups = len(_groups(len(self.images), len(self.principal_mean)))
        width = self.whiten.shape[-1]
        axes = zip(self.principal_mean, self.principal_axes, strict=True)
        fine = (
            n > 0
            and all(part.ndim == 2 and len(part) == n for part in self.images)
            and self.images[0].shape == (n, width)
            and self.whiten.shape == (width, width)
            and self.means.shape == (classes, width)
            and len(self.images) in (1, NEAREST_PARTS)
            and len(self.principal_mean) in (0, len(_PRINCIPAL))
            and all(a.ndim == 2 and m.shape == a.shape[1:] for m, a in axes)
            and self.center.shape == self.spread.shape == (terms,)
            and self.group_center.shape == self.group_spread.shape == (groups,)
        )
        if not fine:
            raise ValueError("arrays of the OOD score do not fit each other")


def _groups(near: int, principal: int) -> list[list[int]]:
    """Terms of each group: all that know classes, those of the output features, the others."""
    groups = [[*range(near + 1)]]
    groups += [[0, near]] if near > 1 else []
    groups += [[*range(near + 1, near + 1 + principal)]] if principal else []
    return groups


def _similarity(squares: Floats) -> Floats:
    """Squared distances -> minus their logarithm: a far image's must not drown the other terms."""
    return -np.log(squares + 1e-9)


def _principal(x: Floats) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(N, w) -> mean (w,) and principal directions (K, w) over the deviation along them."""
    n, mean = len(x), x.mean(0)
    gaps = x - mean
    if n > x.shape[1]:  # the same directions, from the smaller matrix
        squares, columns = np.linalg.eigh(gaps.T @ gaps)
        lengths, directions = np.sqrt(np.maximum(squares[::-1], 0)), columns.T[::-1]
    else:
        _, lengths, directions = np.linalg.svd(gaps, full_matrices=False)
    count = min(max(n // IMAGES_A_DIRECTION, 1), MOST_DIRECTIONS, len(lengths))
    deviation = lengths[:count, None] / np.sqrt(n)
    flat = deviation < 1e-6  # one image, or copies of one: nothing to measure by
    axes = np.where(flat, 0.0, directions[:count] / np.maximum(deviation, 1e-6))
    return mean.astype(np.float32), axes.astype(np.float32)


def _along(x: Floats, mean: AnyFloats, axes: AnyFloats) -> Floats:
    """(B, w) -> (B, 1), higher is nearer to the mean along the axes."""
    places = (x - mean.astype(np.float64)) @ axes.astype(np.float64).T
    return _similarity((places**2).mean(1, keepdims=True))


def _principal_out_of_fold(x: Floats, index: Ints) -> Floats:
    """(N, w) -> (N, 1): `_along` directions fitted without the image's fold."""
    if not 1 < len(x) < MANY_IMAGES:
        return _along(x, *_principal(x))
    turn = np.empty(len(x), np.int64)  # images of a class go to different folds
    turn[np.argsort(index, kind="stable")] = np.arange(len(x))
    folds = turn % min(FOLDS, len(x))
    found = np.empty((len(x), 1))
    for fold in np.unique(folds):
        out = folds == fold
        found[out] = _along(x[out], *_principal(x[~out]))
    return found


def _numbered(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> tuple[Any, ...]:
    count = sum(name.startswith(prefix) for name in arrays)
    return tuple(arrays[f"{prefix}{k}"] for k in range(count))


def _scales(values: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Mean and deviation of each; 0 and 1 where there is nothing."""
    center = np.array([v.mean() if v.size else 0.0 for v in values])
    spread = np.array([max(float(v.std()), 1e-6) if v.size else 1.0 for v in values])
    return center, spread


def _others_nearest(images: npt.NDArray[np.float16], index: Ints) -> Floats:
    """(N, L) -> (N, C): how near each image is to the others of each class."""
    similar = images.astype(np.float64) @ images.astype(np.float64).T
    np.fill_diagonal(similar, -np.inf)
    return _nearest(similar, index, int(index.max()) + 1)


def _share(labels: Ints) -> Ints:
    """Indices of at most MOST_IMAGES images, as many of each class."""
    if len(labels) <= MOST_IMAGES:
        return np.arange(len(labels))
    names = np.unique(labels)
    each = max(MOST_IMAGES // len(names), 1)
    return np.sort(np.concatenate([np.flatnonzero(labels == name)[:each] for name in names]))


def _nearest(similar: Floats, index: Ints, classes: int) -> Floats:
    """(B, N) similarities -> (B, C): mean of the NEIGHBOURS best of each class, without -inf."""
    columns = []
    for k in range(classes):
        own = similar[:, index == k]
        n = min(NEIGHBOURS, own.shape[1])
        best = np.partition(own, own.shape[1] - n, axis=1)[:, -n:]
        count = np.isfinite(best).sum(1)
        total = np.where(np.isfinite(best), best, 0.0).sum(1)
        columns.append(np.where(count > 0, total / np.maximum(count, 1), -np.inf))
    return np.stack(columns, axis=1)


def _squares(a: Floats, b: Floats) -> Floats:
    """(B, D), (C, D) -> (B, C) squared distances."""
    squares: Floats = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)
    return squares


def _leave_one_out(
    x: Floats, index: Ints
) -> tuple[Floats, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mahalanobis distances (N, C) of each image to the classes without it, whitening, means.

    Without the image the covariance changes by one rank (Sherman-Morrison) and its own class's
    mean moves; the level that it is shrunk to is held fixed. A class's only image has no distance
    to its own class: inf.
    """
    n, d = x.shape
    counts = np.bincount(index)
    means = np.stack([x[index == k].mean(0) for k in range(len(counts))])
    alone = n == len(counts)
    residuals = x - (x.mean(0) if alone else means[index])
    covariance = residuals.T @ residuals / n
    level = float(np.trace(covariance)) / d or 1.0
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(d)
    values, vectors = np.linalg.eigh(shrunk)
    whiten = vectors / np.sqrt(values * d)
    images, centres = x @ whiten, means @ whiten
    gap = images - centres[index]
    own_count = counts[index].astype(np.float64)
    several = own_count > 1
    grow = np.where(several, own_count / np.maximum(own_count - 1, 1), 1.0)
    rank_one = np.where(several, (1 - SHRINKAGE) * d / n * grow, 0.0)
    length = (gap**2).sum(1)
    rank_one = rank_one / np.maximum(1 - rank_one * length, 1e-3)
    cross = (gap * images).sum(1)[:, None] - gap @ centres.T
    squares = _squares(images, centres) + rank_one[:, None] * cross**2
    own = np.where(several, grow**2 * (length + rank_one * length**2), np.inf)
    squares[np.arange(n), index] = own
    return squares, whiten.astype(np.float32), centres.astype(np.float32)
