"""Baselines: scikit-learn's classifiers on CLIP's frozen features. `compare` lists the SVM."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.errors import MissingExtraError

REGRESSION = "features + logistic regression"
SVM = "features + linear SVM"
_C = (0.1, 1.0, 10.0, 100.0, 1000.0)  # inverse strength of regularization, chosen within the fold

Answers = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int64]]


def require_sklearn() -> None:
    """Raise MissingExtraError when scikit-learn is not installed."""
    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtraError("comparing methods", "train")


def fit_reference(
    name: str, features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> Answers:
    """Fit on features (N, D) and labels (N,); the result maps features to class indices.

    C is chosen by cross-validation within these N images, where every class has two or more.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.svm import LinearSVC

    model: Any = (
        LogisticRegression(max_iter=1000) if name == REGRESSION else LinearSVC(max_iter=5000)
    )
    counts = np.bincount(labels)
    parts = min(3, int(counts[counts > 0].min()))
    if parts > 1:
        model = GridSearchCV(model, {"C": _C}, cv=StratifiedKFold(parts))
    with warnings.catch_warnings():
        # A C far too large may not converge; then it will not be chosen.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)
    return lambda held: np.asarray(model.predict(held))
