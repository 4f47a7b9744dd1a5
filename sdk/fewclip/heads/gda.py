"""Gaussian discriminant analysis: class means and one shrunk covariance, in closed form.

Wang, Liang, Sheng, He, Wang, Tan, "A Hard-to-Beat Baseline for Training-free CLIP-based
Adaptation", ICLR 2024, arXiv 2402.04087. It shrinks by the dimension; here the amount of shrinkage
is estimated from the data: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional
covariance matrices", Journal of Multivariate Analysis 2004. That amount suits the covariance; the
classes may need more, so heads with several multiples of it can be fitted at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from fewclip.heads.linear import BLOCK, Floats, Head, Ints, row_blocks
from fewclip.heads.sample import AnyMatrix


def fit_gda(features: AnyMatrix, labels: Ints, images: Ints, classes: int) -> Head:
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
    features: AnyMatrix, labels: Ints, images: Ints, classes: int, multiples: Sequence[float]
) -> list[Head]:
    """`fit_gda` with several multiples of the Ledoit-Wolf shrinkage, one head for each."""
    _, index, counts = np.unique(images, return_inverse=True, return_counts=True)
    weight = 1.0 / counts[index]
    means = np.zeros((classes, features.shape[1]))
    for some in row_blocks(len(features)):
        np.add.at(means, labels[some], features[some] * weight[some, None])
    means /= np.bincount(labels, weight, minlength=classes)[:, None]
    centre = means.mean(0)
    # One view of one image per class leaves no residuals: use the spread around the centre instead.
    alone = len(features) == len(counts) and len(counts) <= classes
    centres = np.broadcast_to(centre, means.shape) if alone else means
    covariance, amount = covariance_and_shrinkage(
        features, images, len(counts) - classes, centres, labels
    )
    means = means - centre
    heads = []
    for multiple in multiples:
        solved = cho_solve(cho_factor(shrunk(covariance, multiple * amount)), means.T).T
        heads.append(Head(solved, -0.5 * (solved * means).sum(1) - solved @ centre))
    return heads


def covariance_and_shrinkage(
    features: AnyMatrix, images: Ints, freedom: int, means: Floats, labels: Ints
) -> tuple[Floats, float]:
    """The covariance and its Ledoit-Wolf shrinkage, with images as the independent samples.

    Args:
        features: (N, L), one row per view.
        images: (N,) which image each row is a view of.
        freedom: degrees of freedom, images minus class means.
        means, labels: class means (M, L), subtracted from rows, and the class (N,) of each row.

    Returns:
        The covariance (L, L), and the share of it to replace by equal variances, 0..1.
    """
    _, index, counts = np.unique(images, return_inverse=True, return_counts=True)
    order = np.argsort(index, kind="stable")
    ends, n, size = np.cumsum(counts), len(counts), features.shape[1]
    covariance = np.zeros((size, size))
    own = 0.0  # mean over images of the squared norm of their own second moment
    for some in row_blocks(n, max(1, BLOCK // int(counts.max()))):
        count = counts[some]
        rows = order[ends[some][0] - count[0] : ends[some][-1]]
        x = features[rows] - means[labels[rows]]
        weight = np.repeat(1.0 / (n * count), count)  # every image weighs 1 / n
        covariance += (x * weight[:, None]).T @ x
        for image in np.split(x, np.cumsum(count)[:-1]):
            own += float(((image @ image.T) ** 2).sum()) / len(image) ** 2 / n
    mean, square = float(np.trace(covariance)) / size, float((covariance**2).sum())
    distance = square - size * mean**2
    noise = max(own - square, 0.0) / max(freedom, 1)
    return covariance, min(1.0, noise / distance) if distance > 1e-12 * square else 1.0


def shrunk(covariance: Floats, amount: float) -> Floats:
    """(L, L) -> (L, L), positive definite: `amount`, at most 1, replaced by equal variances."""
    size = len(covariance)
    mean = float(np.trace(covariance)) / size
    if mean <= 0:
        return np.eye(size)
    result: Floats = (1 - min(amount, 1.0)) * covariance
    # A little of the identity even at amount 0: with fewer rows than columns it is singular.
    result[np.diag_indices(size)] += min(max(amount, 1e-6), 1.0) * mean
    return result
