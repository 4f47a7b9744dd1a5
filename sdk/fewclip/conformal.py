"""Prediction sets: the labels that together hold the truth at a promised rate. No model, no torch.

Split conformal prediction (Vovk, Gammerman, Shafer, 2005): images that took no part in training
are scored by how far down the ranking their true label is; a new image's set holds every label
whose score stays below the right quantile of those. Whatever the model, the truth is in the set of
at least `coverage` of new images like the calibration images.

The score is that of APS (Romano, Sesia, Candes, "Classification with Valid and Adaptive Coverage",
NeurIPS 2020, arXiv 2006.02544) without its random part: the probability of all labels ranked
above. RAPS (Angelopoulos et al., ICLR 2021) adds a cost per rank, which shortens the longest sets;
measured on four tasks (`benchmarks/results/conformal.md`) it halves those of 200 classes but makes
the average set longer, and it has two parameters, which would have to be chosen on spare images.
Without the random part the same photo always gets the same set, and the best label is always in
it (its score is 0): if the model is right more often than `coverage` asks, sets are single labels
and cover more than was asked.

Scores come from the probabilities BEFORE the temperature. The temperature is fitted on the very
images that are scored; leaving it out keeps the guarantee exact without dividing those few images
between the two, and it does not change any ranking.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewclip.contract import ConformalScores, HeadSpec
from fewclip.errors import CoverageError, OptionError

MOST = 2000  # scores kept in a card; a random subset of more calibrates just as exactly
_ROUNDING = 1e-6  # float32 logits of two runtimes differ by about this much

Floats = NDArray[np.float64]


def scores(proba: ArrayLike) -> Floats:
    """Conformal score of every label: (B, M) probabilities -> (B, M), 0 for the best label."""
    p = np.asarray(proba, dtype=np.float64)
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    above = np.cumsum(ranked, axis=1) - ranked
    above[:, 0] = 0.0
    values = np.empty_like(p)
    np.put_along_axis(values, order, above, axis=1)
    return values


def fit(
    proba: ArrayLike, truth: ArrayLike, n_classes: int, *, kind: str = "split", seed: int = 0
) -> ConformalScores | None:
    """Calibrate on images that took no part in training or selection; None without any.

    Args:
        proba: (N, C) probabilities over the trained classes before the temperature; for `kind`
            "cross" each row is from the model that did not see that image.
        truth: (N,) index of each image's class.
        n_classes: C.
        seed: for drawing `MOST` images if there are more.
    """
    labels = np.asarray(truth, dtype=np.int64)
    if labels.size == 0:
        return None
    own = scores(proba)[np.arange(len(labels)), labels]
    if len(own) > MOST:
        kept = np.sort(np.random.default_rng(seed).choice(len(own), MOST, replace=False))
        own, labels = own[kept], labels[kept]
    by_class = tuple(tuple(float(s) for s in np.sort(own[labels == c])) for c in range(n_classes))
    return ConformalScores(kind=kind, scores=by_class)


def check_coverage(
    calibration: ConformalScores | None,
    head: HeadSpec,
    coverage: float,
    *,
    class_wise: bool = False,
) -> Floats:
    """(M,) the largest score that lets each current class into a set.

    Raises:
        OptionError: `coverage` is not a number between 0 and 1.
        CoverageError: the model cannot promise it; the message says why.
    """
    if isinstance(coverage, bool) or not isinstance(coverage, (int, float)):
        raise OptionError(
            f"coverage must be a number between 0 and 1, such as 0.9; got {coverage!r}"
        )
    if not 0 < coverage < 1:
        raise OptionError(f"coverage must lie between 0 and 1, such as 0.9; got {coverage!r}")
    if calibration is None:
        raise CoverageError(
            "no prediction sets: no images were kept out when this model was adapted; adapt again "
            "with more images a class, or with val=0.2 (--val 0.2)"
        )
    if sorted(head.columns) != list(range(len(calibration.scores))):
        raise CoverageError(
            "no prediction sets: the classes are not those that coverage was calibrated for; use "
            "the model as it was adapted, or adapt again with all classes"
        )
    if class_wise:
        names = "the class with the fewest images"
        return np.array([_quantile(calibration.scores[c], coverage, names) for c in head.columns])
    pooled = [s for own in calibration.scores for s in own]
    return np.full(len(head.columns), _quantile(pooled, coverage, "this model"))


def prediction_sets(
    proba: ArrayLike, bounds: Floats, labels: Sequence[str]
) -> list[tuple[str, ...]]:
    """One set of labels per image, the most probable first; never empty.

    Args:
        proba: (B, M) probabilities before the temperature.
        bounds: (M,) from `check_coverage`.
        labels: the M classes.
    """
    p = np.asarray(proba, dtype=np.float64)
    inside = scores(p) <= bounds + _ROUNDING
    order = np.argsort(-p, axis=1, kind="stable")
    return [
        tuple(labels[i] for i in row if keep[i]) for row, keep in zip(order, inside, strict=True)
    ]


def _quantile(values: Sequence[float], coverage: float, whose: str) -> float:
    """The ceil((n + 1) * coverage)-th smallest of n scores."""
    n = len(values)
    place = math.ceil((n + 1) * coverage - 1e-9)
    if place > n:
        need = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise CoverageError(
            f"coverage {coverage:g} needs {need} images kept out of training and {whose} has {n} "
            f"(enough for {n / (n + 1):.0%}); ask for less, or adapt again with more images or a "
            "larger val"
        )
    return sorted(values)[place - 1]
