"""Features -> which images teach a linear model the most about the others. It knows no images.

Sequential transductive experimental design: Yu, Bi, Tresp, "Active Learning via Transductive
Experimental Design", ICML 2006. Each pick is the image whose label removes most of the variance of
ridge regression's predictions over all unlabelled images: it has to be like many of
them (typical) and unlike what is labelled or picked already (diverse), which is what pays with few
labels: Hacohen, Dekel, Weinshall, "Active Learning on a Budget" (TypiClust), ICML 2022, arXiv
2202.02794. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

RIDGE = 0.1  # of the regression, for features of length 1
# Cosine of centred features from which two images count as the same picture: different photos of
# CIFAR-10 and of hands reach at most 0.89, files saved again 0.9 and more.
SAME = 0.9
ALIKE = 0.68  # the cosine from which one image can stand for another

Floats = npt.NDArray[np.float32]
AnyFloats = npt.NDArray[np.floating[Any]]


class Pick(NamedTuple):
    """One chosen image.

    Attributes:
        at: which image.
        stands_for: how many of the other images are like it, and less like all labelled or earlier
            ones.
        is_new: whether it is unlike every labelled or earlier one.
        gain: the variance that it removes.
    """

    at: int
    stands_for: int
    is_new: bool
    gain: float


def centred(features: AnyFloats, labelled: AnyFloats) -> tuple[Floats, Floats]:
    """(N, L) and (n, L) around the mean of both, each row of length 1."""
    both = np.concatenate([features, labelled]).astype(np.float32)
    both -= both.mean(0)
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-9)
    return both[: len(features)], both[len(features) :]


def design(
    features: Floats,
    labelled: Floats,
    count: int,
    is_copy: Callable[[int, Sequence[int]], bool] = lambda index, earlier: False,
) -> list[Pick]:
    """Up to `count` images, best first; never near-duplicates, of each other or of labelled ones.

    Args:
        features, labelled: (N, L) and (n, L) of `centred`.
        is_copy: whether an image is the same picture as one of the earlier picks, by its pixels.
    """
    similar = features @ features.T  # (N, N)
    nearest = (features @ labelled.T).max(1, initial=-1.0)  # to what is labelled or picked
    unexplained = _given(similar, features, labelled)
    free = nearest < SAME
    picks: list[Pick] = []
    while len(picks) < count and free.any():
        total = np.einsum("ij,ij->j", unexplained, unexplained)
        gains = np.where(free, total / (unexplained.diagonal() + RIDGE), -1.0)
        best = int(gains.argmax())
        free &= similar[best] < SAME
        free[best] = False
        if is_copy(best, [pick.at for pick in picks]):
            continue
        new = (similar[best] > ALIKE) & (similar[best] > nearest)
        stands_for = int(new.sum()) - int(new[best])
        picks.append(Pick(best, stands_for, bool(nearest[best] <= ALIKE), float(gains[best])))
        nearest = np.maximum(nearest, similar[best])
        column = unexplained[best] / np.sqrt(unexplained[best, best] + RIDGE)
        unexplained -= np.outer(column, column)
    return picks


def _given(similar: Floats, features: Floats, labelled: Floats) -> Floats:
    """(N, N) covariance of the predictions once (n, L) are labelled; a copy."""
    if not len(labelled):
        return similar.copy()
    across = labelled @ features.T  # (n, N)
    noisy = labelled @ labelled.T + RIDGE * np.eye(len(labelled), dtype=np.float32)
    explained: Floats = across.T @ np.linalg.solve(noisy, across)
    return similar - explained
