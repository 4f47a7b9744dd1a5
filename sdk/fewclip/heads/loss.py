"""The log-loss of logits, per image, and its mean with the gradient that fitting needs."""

from __future__ import annotations

import numpy as np

from fewclip.heads.linear import Floats, Ints


def log_loss(logits: Floats, labels: Ints) -> Floats:
    """(n, M) logits, (n,) labels -> (n,) negative log-likelihoods in nats."""
    top = logits.max(1)
    total: Floats = top + np.log(np.exp(logits - top[:, None]).sum(1))
    return total - logits[np.arange(len(labels)), labels]


def mean_and_gradient(logits: Floats, labels: Ints) -> tuple[float, Floats]:
    """The mean of `log_loss`, and its gradient with respect to the logits, (n, M)."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(1, keepdims=True)
    mean = float((np.log(total[:, 0]) - shifted[rows, labels]).mean())
    p /= total
    p[rows, labels] -= 1
    return mean, p / len(labels)
