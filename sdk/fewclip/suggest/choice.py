"""Features and weights -> which images stand for the most others. It knows no images; no torch.

Facility location: the set is grown greedily, each time by the image whose neighbourhood is largest
and covered least by what is labelled or picked already, so that the picks are typical and diverse
at once. Wei, Iyer, Bilmes, "Submodularity in Data Subset Selection and Active Learning", ICML 2015;
what typical and diverse images are worth with few labels: Hacohen, Dekel, Weinshall, "Active
Learning on a Budget" (TypiClust), ICML 2022, arXiv 2202.02794.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

WIDTH = 0.2  # of the kernel, in 1 - cosine of centred features
# Cosine of centred features from which two images are taken for the same picture: different photos
# of CIFAR-10 and of hands come to at most 0.89, files saved again to 0.9 and more.
SAME = 0.9
NEIGHBOUR = 0.2  # kernel value from which an image counts as one that another stands for

Floats = npt.NDArray[np.float32]
AnyFloats = npt.NDArray[np.floating[Any]]


class Pick(NamedTuple):
    """One chosen image.

    Attributes:
        at: which image.
        stands_for: how many of the other images are like it and like no labelled or earlier one.
        is_new: whether it is like no labelled or earlier one itself.
        gain: what it adds to the cover.
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


def cover(
    features: Floats,
    labelled: Floats,
    weights: AnyFloats,
    count: int,
    is_copy: Callable[[int, Sequence[int]], bool] = lambda index, earlier: False,
) -> list[Pick]:
    """Up to `count` images, best first; never near-duplicates, of each other or of labelled ones.

    Args:
        features, labelled: (N, L) and (n, L) of `centred`.
        weights: (N,) how much each image matters to those that stand for it, >= 0.
        is_copy: whether an image is the same picture as one of the earlier picks, by its pixels.
    """
    similar = features @ features.T
    kernel = np.exp((similar - 1) / WIDTH)  # (N, N)
    to_labelled = (features @ labelled.T).max(1, initial=-1.0)
    covered = np.exp((to_labelled - 1) / WIDTH)
    free = to_labelled < SAME
    picks: list[Pick] = []
    while len(picks) < count and free.any():
        added = np.maximum(kernel - covered[:, None], 0)  # (N, N): what column j adds to row i
        gains = np.where(free, weights @ added, -1.0)
        best = int(gains.argmax())
        free &= similar[best] < SAME
        free[best] = False
        if is_copy(best, [pick.at for pick in picks]):
            continue
        new = (kernel[:, best] > NEIGHBOUR) & (covered < kernel[:, best])
        stands_for = int(new.sum()) - int(new[best])
        picks.append(Pick(best, stands_for, bool(covered[best] <= NEIGHBOUR), float(gains[best])))
        covered = np.maximum(covered, kernel[:, best])
    return picks
