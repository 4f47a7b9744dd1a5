"""`CLIPClassifier`: `fewclip.adapt` as a scikit-learn estimator, to cross-validate or pipeline.

Images are what `adapt` takes: paths, PIL images or RGB uint8 arrays, as a list or as (N, H, W, 3).
Tables of numbers are not images: scikit-learn's estimator checks for tables (number of features,
NaN, sparse matrices) do not apply, and all others pass, on tables drawn as images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from fewclip.adaptation import adapt
from fewclip.errors import DataError

__all__ = ["CLIPClassifier"]


class CLIPClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """CLIP adapted to labelled images.

    Args:
        method, backbone, shots, template, val, epochs, seed, device: as for `fewclip.adapt`, but by
            default the method is one that fits in seconds, because each fold fits it anew, all
            images are used, and none are kept out for validation.
        phrases: label -> phrase, for labels that are not what one would say.
        options: the method's, such as `{"omega": 4}`.

    Attributes:
        classes_: the labels, sorted, in the order of `predict_proba`'s columns.
        classifier_: the `fewclip.Classifier`, for all that scikit-learn's interface lacks.
    """

    def __init__(
        self,
        method: str = "gda",
        *,
        backbone: str = "micro",
        shots: int | Literal["all"] = "all",
        template: str = "a photo of a {}.",
        val: Any = 0,
        epochs: int | None = None,
        seed: int = 0,
        device: str = "auto",
        phrases: Mapping[Any, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.method = method
        self.backbone = backbone
        self.shots = shots
        self.template = template
        self.val = val
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.phrases = phrases
        self.options = options

    def fit(self, X: Sequence[Any] | npt.NDArray[Any], y: Sequence[Any] | npt.NDArray[Any]) -> Self:
        """Adapt to images `X` with labels `y`.

        Raises:
            DataError: no labels, or not as many as images.
            ValueError: labels that are infinite, NaN, continuous or a table; scikit-learn's own.
        """
        if y is None:
            raise DataError("CLIPClassifier requires y to be passed, but the target y is None")
        X, y = _listed(X), column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        if len(X) != len(y):
            raise DataError(f"{len(X)} images but {len(y)} labels; give one label for each image")
        self.classes_ = np.unique(y)
        phrases = self.phrases or {}
        self.classifier_ = adapt(
            [(image, str(label)) for image, label in zip(X, y, strict=True)],
            method=self.method,
            backbone=self.backbone,
            shots=self.shots,
            classes={str(c): phrases.get(c, str(c)) for c in self.classes_.tolist()},
            template=self.template,
            val=self.val,
            epochs=self.epochs,
            seed=self.seed,
            device=self.device,
            progress=False,
            **(self.options or {}),
        )
        return self

    def predict_proba(self, X: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """(N, C) float64; rows sum to 1, columns as `classes_`."""
        check_is_fitted(self)
        return np.asarray(self.classifier_.predict_proba(_listed(X)), np.float64)

    def predict(self, X: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N,) labels, of the type that `fit` was given."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[best]
        return labels


def _listed(images: Any) -> list[Any]:
    """A list of the images in any container, or in anything that converts to an array."""
    return list(images if hasattr(images, "__len__") else np.asarray(images))
