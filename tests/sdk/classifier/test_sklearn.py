"""The scikit-learn estimator: parameters, cloning, cross-validation, labels of any type."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

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


@pytest.mark.slow
def test_it_can_be_cross_validated(images: np.ndarray) -> None:
    scores = cross_val_score(
        CLIPClassifier("kgcoop+dept", epochs=1), images, LABELS, cv=2, error_score="raise"
    )
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
