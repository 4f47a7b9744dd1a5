"""Which labels are wrong, and how many, assuming that they were flipped at random, at one rate.

A label is kept with probability 1 - e and becomes any of the others with e / (M - 1), whatever the
image (the symmetric noise of Natarajan, Dhillon, Ravikumar, Tewari, "Learning with Noisy Labels",
NeurIPS 2013). The rate e that best explains the given labels is fitted; Bayes' rule then gives the
probability that each of them is wrong. So few right labels are doubted when all are right, and more
when many are wrong, which no fixed bound on the probabilities achieves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

# Beta prior of the rate, as if 1 label in 21 had already been found wrong: a hundred images say
# little about it. Chosen on training photos with flipped labels.
PRIOR_WRONG, PRIOR_RIGHT = 1.0, 20.0
MOST = 0.7  # share of the rate at which labels would carry no information

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelNoise:
    """How reliable the given labels are.

    Attributes:
        rate: the share of labels that are wrong, 0..1.
        proba: (N, M) probabilities of the classes, from the image alone.
        wrong: (N,) probability that the given label is wrong.
    """

    rate: float
    proba: Floats
    wrong: Floats


def estimate_noise(proba: Floats, labels: Ints) -> LabelNoise:
    """Fit the rate of wrong labels, and with it the model's confidence.

    Args:
        proba: (N, M) by models that did not see the image, but may know wrong labels of others.
        labels: (N,) as given, 0..M-1.
    """
    classes = proba.shape[1]
    logs = np.log(np.maximum(proba, 1e-12))
    rows = np.arange(len(labels))
    most = MOST * (classes - 1) / classes

    def given(log_confidence: float, log_odds: float) -> tuple[float, Floats, Floats]:
        """The rate; (N,) probability of each label being given and wrong, and being given."""
        rate = most * float(expit(log_odds))
        own = np.exp(log_softmax(np.exp(log_confidence) * logs, axis=1)[rows, labels])
        flipped = rate / (classes - 1) * (1 - own)
        return rate, flipped, flipped + (1 - rate) * own

    def loss(x: Floats) -> float:
        rate, _, likelihood = given(*x)
        prior = PRIOR_WRONG * np.log(rate) + PRIOR_RIGHT * np.log1p(-rate)
        return -float(np.log(likelihood).sum() + prior)

    starts = ((0.3, log_odds) for log_odds in (-5.0, -2.0, 0.0))
    best = min((minimize(loss, x, method="Nelder-Mead") for x in starts), key=lambda end: end.fun)
    rate, flipped, likelihood = given(*best.x)
    return LabelNoise(rate, softmax(np.exp(best.x[0]) * logs, axis=1), flipped / likelihood)
