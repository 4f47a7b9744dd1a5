"""Distances under a Gaussian: to class means, and along the principal directions of all images.

- Mahalanobis distance to the class mean under one shrunk covariance: Lee, Lee, Lee, Shin, "A Simple
  Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS
  2018, arXiv 1807.03888.
- Mahalanobis distance along the few principal directions: no classes, but how strokes, colours and
  textures vary. A few dozen images say little about all directions, but enough about ten.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fewclip.ood.features import AnyFloats, Floats, Ints

SHRINKAGE = 0.1  # of the covariance, towards equal variance in all directions
MOST_DIRECTIONS = 10  # principal directions
IMAGES_A_DIRECTION = 8  # with fewer, the spread along it is a guess
FOLDS = 16
MANY_IMAGES = 1024  # from here on ten directions fit an image no better for having seen it


def similarity(squares: Floats) -> Floats:
    """Squared distances -> minus their logarithm: far images must not drown the other terms."""
    return -np.log(squares + 1e-9)


def squares_to(a: Floats, b: Floats) -> Floats:
    """(B, D), (C, D) -> (B, C) squared distances."""
    squares: Floats = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)
    return squares


def mahalanobis_leave_one_out(
    x: Floats, index: Ints
) -> tuple[Floats, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mahalanobis distances (N, C) of images to classes fitted without them, whitening, means.

    Without the image the covariance changes by one rank (Sherman-Morrison) and its own class's
    mean moves; the variance that it is shrunk to is held fixed. A class's only image has no
    distance to its own class: inf.
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
    squares = squares_to(images, centres) + rank_one[:, None] * cross**2
    own = np.where(several, grow**2 * (length + rank_one * length**2), np.inf)
    squares[np.arange(n), index] = own
    return squares, whiten.astype(np.float32), centres.astype(np.float32)


def principal(x: Floats) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(N, w) -> mean (w,) and principal directions (K, w), divided by the deviation along them."""
    n, mean = len(x), x.mean(0)
    gaps = x - mean
    if n > x.shape[1]:  # the same directions, from the smaller matrix
        squares, columns = np.linalg.eigh(gaps.T @ gaps)
        lengths, directions = np.sqrt(np.maximum(squares[::-1], 0)), columns.T[::-1]
    else:
        _, lengths, directions = np.linalg.svd(gaps, full_matrices=False)
    count = min(max(n // IMAGES_A_DIRECTION, 1), MOST_DIRECTIONS, len(lengths))
    deviation = lengths[:count, None] / np.sqrt(n)
    flat = deviation < 1e-6  # one image, or copies of one: no spread
    axes = np.where(flat, 0.0, directions[:count] / np.maximum(deviation, 1e-6))
    return mean.astype(np.float32), axes.astype(np.float32)


def along(x: Floats, mean: AnyFloats, axes: AnyFloats) -> Floats:
    """(B, w) -> (B, 1), higher is closer to the mean along the axes."""
    places = (x - mean.astype(np.float64)) @ axes.astype(np.float64).T
    return similarity((places**2).mean(1, keepdims=True))


def along_out_of_fold(x: Floats, index: Ints) -> Floats:
    """(N, w) -> (N, 1): `along` directions fitted without the image's fold."""
    if not 1 < len(x) < MANY_IMAGES:
        return along(x, *principal(x))
    turn = np.empty(len(x), np.int64)  # images of a class go to different folds
    turn[np.argsort(index, kind="stable")] = np.arange(len(x))
    folds = turn % min(FOLDS, len(x))
    found = np.empty((len(x), 1))
    for fold in np.unique(folds):
        out = folds == fold
        found[out] = along(x[out], *principal(x[~out]))
    return found
