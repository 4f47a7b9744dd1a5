"""The scikit-learn estimator: its own checks, cross-validation, labels of any type."""

from __future__ import annotations

import contextlib
import unittest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted
from tiny_backbone import config, write

from fewclip.errors import DataError
from fewclip.samples import digits
from fewclip.sklearn import CLIPClassifier


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """(12, 64, 64, 3) uint8: six zeros, then six ones."""
    drawn = [digits.draw(label, i) for label in ("zero", "one") for i in range(6)]
    return np.stack([np.asarray(image) for image in drawn])


LABELS = np.repeat([7, 3], 6)


def test_parameters_are_kept_and_cloned() -> None:
    made = CLIPClassifier("zero-shot", seed=3, phrases={7: "zero"})
    assert clone(made).get_params() == made.get_params()
    assert made.set_params(seed=4).seed == 4
    with pytest.raises(NotFittedError):
        made.predict([])


def test_labels_come_back_as_they_were_given(images: np.ndarray) -> None:
    made = CLIPClassifier("zero-shot").fit(images, LABELS)
    assert made.classes_.tolist() == [3, 7]
    found = made.predict_proba(images)
    assert found.shape == (12, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert set(made.predict(images).tolist()) <= {3, 7}
    assert 0 <= made.score(images, LABELS) <= 1
    with pytest.raises(DataError, match="12 images but 11 labels"):
        made.fit(images, LABELS[:-1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [(None, "requires y"), (np.linspace(0, 1, 12), "continuous"), (np.eye(12), "1d array")],
)
def test_labels_that_are_none_are_refused(images: np.ndarray, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLIPClassifier("zero-shot").fit(images, labels)


@pytest.mark.slow
def test_it_can_be_cross_validated(images: np.ndarray) -> None:
    scores = cross_val_score(CLIPClassifier("gda"), images, LABELS, cv=2, error_score="raise")
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


# ---- scikit-learn's own checks, on its tables turned into images -----------------------------

TABLES = "of tables of numbers, which images are not"
SPARSE = "no image is sparse"
NOT_FOR_IMAGES = {
    "check_n_features_in_after_fitting": TABLES,
    "check_n_features_in": TABLES,
    "check_complex_data": TABLES,
    "check_estimators_empty_data_messages": TABLES,
    "check_estimators_nan_inf": TABLES,
    "check_fit1d": TABLES,
    "check_fit2d_predict1d": TABLES,
    "check_estimator_sparse_tag": SPARSE,
    "check_estimator_sparse_array": SPARSE,
    "check_estimator_sparse_matrix": SPARSE,
    "check_fit2d_1sample": "a single image is refused in fewclip's own words",
    "check_classifiers_train": "zero-shot, which is quick, learns nothing",
    "check_methods_subset_invariance": "asks for 1e-7; in float32 a batch's size changes 1e-6",
}


class OfTables(CLIPClassifier):
    """Rows of numbers as grey bars; other numbers make other images."""

    def fit(self, X: Any, y: Any) -> Any:
        return super().fit(bars(X), y)

    def predict_proba(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().predict_proba(bars(X))


def bars(table: Any) -> np.ndarray:
    """(N, d) float64 -> (N, 16, 8 d, 3) uint8."""
    rows = np.ascontiguousarray(table, np.float64)
    grey = rows.view(np.uint8).reshape(len(rows), 1, -1, 1)
    return np.broadcast_to(grey, (len(rows), 16, grey.shape[2], 3)).copy()


@pytest.mark.slow
def test_it_passes_the_checks_that_apply_to_images(tmp_path: Path) -> None:
    made = OfTables("zero-shot", backbone=str(write(tmp_path / "tiny", config())))
    checks = list(
        estimator_checks_generator(made, expected_failed_checks=NOT_FOR_IMAGES, mark="skip")
    )
    names = {getattr(check, "func", check).__name__ for _, check in checks}
    assert len(names) > 30
    for estimator, check in checks:
        with contextlib.suppress(unittest.SkipTest):  # of NOT_FOR_IMAGES
            check(estimator)
