"""Multinomial logistic regression on frozen features, its strength chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from fewclip.heads.folds import assign_folds, out_of_fold
from fewclip.heads.linear import AnyFloats, Floats, Head, Ints
from fewclip.heads.loss import log_loss, mean_and_gradient
from fewclip.heads.sample import AnyMatrix

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)


def fit_logistic(features: AnyMatrix, labels: Ints, classes: int, strength: float) -> Head:
    """Minimise mean log-loss + |W|^2 / (2 * strength * N): scikit-learn's `C` is `strength`.

    With fewer rows than columns it is solved in the span of the rows, which contains the optimum.
    Products are in float32, as precise as the features are and twice as fast.

    Args:
        features: (N, L).
        labels: (N,) class of each row, 0..classes-1.
        strength: inverse strength of regularization, > 0.
    """
    n = len(features)
    x = np.asarray(features, np.float64)
    centre = x.mean(0)
    x = x - centre
    basis = None
    if n < x.shape[1]:
        u, s, basis = np.linalg.svd(x, full_matrices=False)
        x = u * s
    d, rows = x.shape[1], x.astype(np.float32)
    del x

    def loss(theta: Floats) -> tuple[float, Floats]:
        weight, bias = theta[: classes * d].reshape(classes, d), theta[classes * d :]
        logits = (rows @ weight.T.astype(np.float32)).astype(np.float64) + bias
        fit, by_logits = mean_and_gradient(logits, labels)
        by_weight = by_logits.T.astype(np.float32) @ rows
        ridge = weight / (strength * n)
        gradient = np.concatenate([(by_weight + ridge).ravel(), by_logits.sum(0)])
        return fit + 0.5 * float((weight * ridge).sum()), gradient

    options = {"maxiter": 200, "gtol": 1e-5}
    start = np.zeros(classes * (d + 1))
    theta = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    weight = theta[: classes * d].reshape(classes, d)
    if basis is not None:
        weight = weight @ basis
    return Head(weight, theta[classes * d :] - weight @ centre)


def choose_strength(
    features: AnyFloats,
    labels: Ints,
    classes: int,
    rng: np.random.Generator,
    strengths: Sequence[float] = STRENGTHS,
) -> float:
    """The strength of least log-loss over three folds, one row per image; 10 without folds.

    They are tried in order until the loss rises: weaker regularization takes longest to fit.

    Args:
        features: (N, L) plain views.
        labels: (N,).
        strengths: in rising order.
    """
    fold = assign_folds(labels, 3, rng)
    held = fold >= 0
    if not held.any():
        return 10.0

    def score(strength: float) -> float:
        def fit(train: Ints) -> Head:
            return fit_logistic(features[train], labels[train], classes, strength)

        logits = out_of_fold(fit, features, fold, classes)
        return float(log_loss(logits[held], labels[held]).mean())

    best, least = strengths[0], np.inf
    for strength in strengths:
        found = score(strength)
        if found > least:
            break
        best, least = strength, found
    return best
