"""How near the nearest training images are, class by class and relative to their own spacing.

- Similarity to the nearest training images of a class: Sun, Ming, Zhu, Li, "Out-of-Distribution
  Detection with Deep Nearest Neighbors", ICML 2022, arXiv 2204.06507.
- Local density: Breunig, Kriegel, Ng, Sander, "LOF: Identifying Density-Based Local Outliers",
  SIGMOD 2000; here the plain ratio of mean cosine distances, without reachability.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.ood.features import Floats, Ints

NEIGHBOURS = 5
_LEAST_DISTANCE = 1e-4  # cosine; copies of one image count as no denser than that


def nearest(similar: Floats, index: Ints, classes: int) -> Floats:
    """(B, N) similarities -> (B, C): mean of each class's NEIGHBOURS best, ignoring -inf."""
    columns = []
    for k in range(classes):
        own = similar[:, index == k]
        n = min(NEIGHBOURS, own.shape[1])
        best = np.partition(own, own.shape[1] - n, axis=1)[:, -n:]
        count = np.isfinite(best).sum(1)
        total = np.where(np.isfinite(best), best, 0.0).sum(1)
        columns.append(np.where(count > 0, total / np.maximum(count, 1), -np.inf))
    return np.stack(columns, axis=1)


def similarities_of_others(images: npt.NDArray[np.floating[Any]]) -> Floats:
    """(N, L) -> (N, N), -inf on the diagonal: no image is its own neighbour."""
    similar: Floats = images.astype(np.float64) @ images.astype(np.float64).T
    np.fill_diagonal(similar, -np.inf)
    return similar


def local_distances(similar: Floats) -> Floats:
    """(N, N) of `similarities_of_others`, N > NEIGHBOURS -> (N,) mean distance to the nearest."""
    distances: Floats = 1 - _most_similar(similar, NEIGHBOURS)[1].mean(1)
    return distances


def density(similar: Floats, local: Floats) -> Floats:
    """Minus the log of how far the nearest images are, relative to how far their own nearest are.

    Args:
        similar: (B, N) similarities to the training images.
        local: (N,) `local_distances` of those.

    Returns:
        (B, 1), higher is denser; 0 where it is as dense around an image as around its neighbours.
    """
    near, values = _most_similar(similar, NEIGHBOURS)
    return _ratio(values.mean(1), local[near].mean(1))


def density_leave_one_out(similar: Floats) -> Floats:
    """(N, N) of `similarities_of_others`, N > NEIGHBOURS + 1 -> (N, 1): `density` of each image
    against the others, none of which counts it as a neighbour either."""
    near, values = _most_similar(similar, NEIGHBOURS + 1)
    own, rows = near[:, :-1], np.arange(len(similar))
    is_it = near[own] == rows[:, None, None]  # (N, k, k + 1)
    left_out = np.where(is_it.any(2), np.take_along_axis(similar, own, 1), values[own][:, :, -1])
    others = (values[own].sum(2) - left_out) / NEIGHBOURS
    return _ratio(values[:, :-1].mean(1), 1 - others.mean(1))


def _ratio(similarity: Floats, local: Floats) -> Floats:
    """(B,) mean similarity to the neighbours, (B,) their local distance -> (B, 1)."""
    distance = np.maximum(1 - similarity, 0) + _LEAST_DISTANCE
    found: Floats = np.log((np.maximum(local, 0) + _LEAST_DISTANCE) / distance)[:, None]
    return found


def _most_similar(similar: Floats, count: int) -> tuple[Ints, Floats]:
    """(B, N) -> (B, count) columns of the most similar, best first, and their similarities."""
    some = np.argpartition(-similar, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(similar, some, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(some, order, 1), np.take_along_axis(values, order, 1)
