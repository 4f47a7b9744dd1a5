"""Cross-validation of heads: which images each fold holds out, and their out-of-fold logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fewclip.heads.linear import AnyFloats, Floats, Head, Ints


def assign_folds(labels: Ints, folds: int, rng: np.random.Generator) -> Ints:
    """(n,) labels of images -> (n,) fold, 0..folds-1, each class spread evenly.

    A class's only image is in no fold (-1): if it were held out, its class would be unknown.
    """
    fold = np.full(len(labels), -1, np.int64)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        if len(own) > 1:
            fold[own] = (np.arange(len(own)) + rng.integers(folds)) % folds
    return fold


def out_of_fold(
    fit: Callable[[Ints], Head], features: AnyFloats, fold: Ints, classes: int
) -> Floats:
    """Each image's logits, from a head that has not seen it.

    Args:
        fit: (n_train,) indices of training images -> the head fitted on them.
        features: (n, L) plain views.
        fold: (n,) of `assign_folds`.

    Returns:
        (n, classes) float64; rows in no fold are NaN.
    """
    logits = np.full((len(features), classes), np.nan)
    for k in np.unique(fold[fold >= 0]):
        held = fold == k
        logits[held] = fit(np.flatnonzero(~held))(features[held])
    return logits
