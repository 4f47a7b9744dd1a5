"""Gaussian discriminant analysis: class means and one shrunk covariance, in closed form.

Wang, Liang, Sheng, He, Wang, Tan, "A Hard-to-Beat Baseline for Training-free CLIP-based
Adaptation", ICLR 2024, arXiv 2402.04087. It shrinks by the dimension; here the amount of shrinkage
is estimated from the data: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional
covariance matrices", Journal of Multivariate Analysis 2004. That amount suits the covariance; what
suits the classes may be more of it, so heads under several multiples of it can be had at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from fewclip.heads.linear import AnyFloats, Floats, Head, Ints


def fit_gda(features: AnyFloats, labels: Ints, images: Ints, classes: int) -> Head:
    """The discriminant of Gaussian classes with one covariance and equal priors.

    `W = S^-1 mu`, `b = -mu' S^-1 mu / 2`, both around the mean of the class means.

    Args:
        features: (N, L), one row per augmented view.
        labels: (N,) class of each row, 0..classes-1; every class has a row.
        images: (N,) which image each row is a view of: views of one image count as one.
        classes: number of classes, M.
    """
    return fit_gda_heads(features, labels, images, classes, (1.0,))[0]


def fit_gda_heads(
    features: AnyFloats, labels: Ints, images: Ints, classes: int, multiples: Sequence[float]
) -> list[Head]:
    """`fit_gda` under several multiples of the Ledoit-Wolf shrinkage, one head for each."""
    x = np.asarray(features, np.float64)
    _, index, counts = np.unique(images, return_inverse=True, return_counts=True)
    weight = 1.0 / counts[index]
    means = np.zeros((classes, x.shape[1]))
    np.add.at(means, labels, x * weight[:, None])
    means /= np.bincount(labels, weight, minlength=classes)[:, None]
    centre = means.mean(0)
    # One view of one image per class leaves no residual at all: spread around the centre instead.
    alone = len(x) == len(counts) and len(counts) <= classes
    residuals = x - (centre if alone else means[labels])
    covariance, amount = covariance_and_shrinkage(residuals, images, len(counts) - classes)
    means -= centre
    heads = []
    for multiple in multiples:
        solved = cho_solve(cho_factor(shrunk(covariance, multiple * amount)), means.T).T
        heads.append(Head(solved, -0.5 * (solved * means).sum(1) - solved @ centre))
    return heads


def covariance_and_shrinkage(residuals: Floats, images: Ints, freedom: int) -> tuple[Floats, float]:
    """The covariance and its Ledoit-Wolf shrinkage, with images as the independent samples.

    Args:
        residuals: (N, L) of each view from its class mean.
        images: (N,) which image each row is a view of.
        freedom: images less the class means that were subtracted.

    Returns:
        (L, L), and how much of it equal variances should replace, 0..1.
    """
    _, index, counts = np.unique(images, return_inverse=True, return_counts=True)
    order = np.argsort(index, kind="stable")
    x, n, size = residuals[order], len(counts), residuals.shape[1]
    weight = 1.0 / (n * counts[index[order]])  # every image weighs 1 / n
    covariance: Floats = (x * weight[:, None]).T @ x
    mean, square = float(np.trace(covariance)) / size, float((covariance**2).sum())
    ends = np.cumsum(counts)
    own = 0.0  # mean over images of the squared norm of their own second moment
    for start, end, count in zip(ends - counts, ends, counts, strict=True):
        gram = x[start:end] @ x[start:end].T
        own += float((gram**2).sum()) / count**2 / n
    distance = square - size * mean**2
    noise = max(own - square, 0.0) / max(freedom, 1)
    return covariance, min(1.0, noise / distance) if distance > 1e-12 * square else 1.0


def shrunk(covariance: Floats, amount: float) -> Floats:
    """(L, L) -> (L, L), positive definite: `amount` of it, at most 1, is equal variances."""
    size = len(covariance)
    mean = float(np.trace(covariance)) / size
    if mean <= 0:
        return np.eye(size)
    result: Floats = (1 - min(amount, 1.0)) * covariance
    # A trace of the identity also where nothing asks to shrink: fewer rows than columns.
    result[np.diag_indices(size)] += min(max(amount, 1e-6), 1.0) * mean
    return result
