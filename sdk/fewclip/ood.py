"""How much an image resembles the training images: one OOD score. No torch, no answer.

Scores fail on different out-of-distribution images, so several must agree on ONE class:

- similarity to the nearest training images of the class (Sun, Ming, Zhu, Li, "Out-of-Distribution
  Detection with Deep Nearest Neighbors", ICML 2022, arXiv 2204.06507), in the output features and
  in patch-token statistics from the middle of the image tower;
- Mahalanobis distance to the class mean (Lee, Lee, Lee, Shin, "A Simple Unified Framework for
  Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018, arXiv 1807.03888) in
  the output features, under one shrunk covariance.

Each is standardized by its leave-one-out values on the training images and they are added class by
class; the best class counts. Nothing is fitted on out-of-distribution images. Skip Tuning draws the
output features together, so that a tuned image tower is judged by intermediate statistics alone.
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

Floats = npt.NDArray[np.float64]
OODPart = Floats  # (B, L) float64, rows of length 1
AnyFloats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

_BANK = "ood_images_"  # + number of the part
_ARRAYS = ("labels", "whiten", "means", "center", "spread")


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
        (B, D); with intermediate also (B, 2 w) mean and deviation, and (B, w) maximum.
    """
    if intermediate is None:
        return (unit(features),)
    _, mean, _, deviation, peak = np.split(np.asarray(intermediate, np.float64), 5, axis=1)
    return unit(features), unit(np.concatenate([mean, deviation], axis=1)), unit(peak)


@dataclasses.dataclass(frozen=True)
class OODScore:
    """Training images as a model keeps them.

    Attributes:
        images: per part (N, L_p) float16, L2-normalised; part 0 is the output features.
        labels: (N,) class of each image, the head's column.
        whiten: (D, D) float32; squared distances after it are Mahalanobis distances over D.
        means: (C, D) float32, whitened class means, in the order of the sorted labels.
        center, spread: (parts + 1,) mean and deviation of each term's leave-one-out values.
        own: (N,) leave-one-out scores of the training images; empty where none are to be had.
    """

    images: tuple[npt.NDArray[np.float16], ...]
    labels: Ints
    whiten: npt.NDArray[np.float32]
    means: npt.NDArray[np.float32]
    center: Floats
    spread: Floats
    own: Floats = dataclasses.field(default_factory=lambda: np.zeros(0))

    @classmethod
    def fit(cls, parts: Sequence[AnyFloats], labels: npt.NDArray[Any]) -> OODScore:
        """Learn from `ood_parts` of N >= 1 images and their classes (N,)."""
        kept = _share(np.asarray(labels, np.int64))
        own_labels = np.asarray(labels, np.int64)[kept]
        images = tuple(np.asarray(part, np.float16)[kept] for part in parts)
        _, index = np.unique(own_labels, return_inverse=True)
        classes = int(index.max()) + 1
        distances, whiten, means = _leave_one_out(np.asarray(parts[0], np.float64)[kept], index)
        terms = []
        for part in images:
            similar = part.astype(np.float64) @ part.astype(np.float64).T
            np.fill_diagonal(similar, -np.inf)
            terms.append(_nearest(similar, index, classes))
        terms.append(-distances)
        best = [term.max(1) for term in terms]
        seen = [values[np.isfinite(values)] for values in best]
        center = np.array([v.mean() if v.size else 0.0 for v in seen])
        spread = np.array([max(float(v.std()), 1e-6) if v.size else 1.0 for v in seen])
        own = _joint(terms, center, spread).max(1)
        own = own[np.isfinite(own)]
        return cls(images, own_labels, whiten, means, center, spread, own)

    def score(
        self, parts: Sequence[AnyFloats], classes: Sequence[int] | None = None
    ) -> npt.NDArray[np.float64]:
        """(B,) float64, higher is more like the training images.

        Args:
            parts: `ood_parts` of B images.
            classes: columns of the trained classes that are still there; None for all. With none
                of them left every image scores -inf.
        """
        names, index = np.unique(self.labels, return_inverse=True)
        parts = parts[-len(self.images) :]  # fitted without the output features, it ignores them
        terms = []
        for part, images in zip(parts, self.images, strict=True):
            similar = np.asarray(part, np.float64) @ images.astype(np.float64).T
            terms.append(_nearest(similar, index, len(names)))
        whitened = np.asarray(parts[0], np.float64) @ self.whiten.astype(np.float64)
        terms.append(-_squares(whitened, self.means.astype(np.float64)))
        joint = _joint(terms, self.center, self.spread)
        if classes is not None:
            joint = joint[:, np.isin(names, classes)]
        best: Floats = joint.max(1, initial=-np.inf)
        return best

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything `score` needs, by name, for a model file."""
        arrays: dict[str, npt.NDArray[Any]] = {f"ood_{k}": getattr(self, k) for k in _ARRAYS}
        return arrays | {f"{_BANK}{k}": part for k, part in enumerate(self.images)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> OODScore | None:
        """`to_arrays` read back; None where there are none of them.

        Raises:
            KeyError, ValueError: an array is missing, or its shape does not fit the others.
        """
        parts = sum(name.startswith(_BANK) for name in arrays)
        if not parts:
            return None
        images = tuple(arrays[f"{_BANK}{k}"] for k in range(parts))
        found = cls(images, **{k: arrays[f"ood_{k}"] for k in _ARRAYS})
        n, d = len(found.labels), images[0].shape[1]
        wanted = {
            "labels": (n,),
            "whiten": (d, d),
            "means": (len(np.unique(found.labels)), d),
            "center": (parts + 1,),
            "spread": (parts + 1,),
        }
        odd = [name for name, shape in wanted.items() if getattr(found, name).shape != shape]
        if odd or not n or any(part.ndim != 2 or len(part) != n for part in images):
            raise ValueError(
                f"the arrays of the OOD score do not fit each other ({odd or 'images'})"
            )
        return found


def _share(labels: Ints) -> Ints:
    """Indices of at most MOST_IMAGES images, as many of each class."""
    if len(labels) <= MOST_IMAGES:
        return np.arange(len(labels))
    names = np.unique(labels)
    each = max(MOST_IMAGES // len(names), 1)
    return np.sort(np.concatenate([np.flatnonzero(labels == name)[:each] for name in names]))


def _joint(terms: Sequence[Floats], center: Floats, spread: Floats) -> Floats:
    """(B, C) of each term -> their standardized sum, (B, C)."""
    standard = [(t - c) / s for t, c, s in zip(terms, center, spread, strict=True)]
    joint: Floats = np.sum(standard, axis=0)
    return joint


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
