"""Prediction sets: coverage holds, they equal MAPIE's, and an empty promise is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fewclip import conformal
from fewclip.contract import ConformalScores, HeadSpec
from fewclip.errors import CoverageError, OptionError

Pairs = tuple[np.ndarray, np.ndarray]


def drawn(n: int, classes: int, seed: int, sharpness: float = 2.0) -> Pairs:
    """(n, classes) probabilities of a model that is right more often than not, and the truth."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(n, classes))
    truth = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # drawn from softmax(logits)
    logits = logits * rng.uniform(0.5, 2.0)  # and the model's confidence is off
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True), truth


def head(classes: int) -> HeadSpec:
    return HeadSpec(logit_scale=1.0, columns=tuple(range(classes)))


def fitted(p: np.ndarray, truth: np.ndarray) -> ConformalScores:
    found = conformal.fit(p, truth, p.shape[1])
    assert found is not None
    return found


def sets_of(p: np.ndarray, learned: ConformalScores, coverage: float, **how: Any) -> np.ndarray:
    """(B, M) bool."""
    names = [str(i) for i in range(p.shape[1])]
    bounds = conformal.check_coverage(learned, head(p.shape[1]), coverage, **how)
    found = conformal.prediction_sets(p, bounds, names)
    return np.array([[name in each for name in names] for each in found])


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("classes", [3, 40])
def test_the_truth_is_in_the_set_as_often_as_promised(coverage: float, classes: int) -> None:
    rates = []
    for seed in range(60):
        p, truth = drawn(700, classes, seed)
        inside = sets_of(p[200:], fitted(p[:200], truth[:200]), coverage)
        rates.append(inside[np.arange(500), truth[200:]].mean())
        assert inside[np.arange(500), p[200:].argmax(1)].all()  # never without the best label
    assert np.mean(rates) >= coverage - 0.01
    if classes == 40:  # the model is wrong often enough for the promise to be tight
        assert np.mean(rates) <= coverage + 1 / 201 + 0.01


def test_class_wise_coverage_holds_for_every_class() -> None:
    pooled, own = np.zeros(3), np.zeros(3)
    for seed in range(40):
        p, truth = drawn(900, 3, seed, sharpness=0.7)
        p[:, 0] *= 0.4  # a class that the model overlooks
        p /= p.sum(1, keepdims=True)
        learned = fitted(p[:300], truth[:300])
        for total, class_wise in ((pooled, False), (own, True)):
            inside = sets_of(p[300:], learned, 0.9, class_wise=class_wise)
            for c in range(3):
                total[c] += inside[truth[300:] == c, c].mean() / 40
    assert pooled.min() < 0.88  # all together is not each
    assert own.min() > 0.89


class _Ones(np.random.RandomState):
    """MAPIE subtracts u * p(true label) from its scores; u = 1 is APS without its random part."""

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return np.ones(size)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_equal_mapies_aps(coverage: float) -> None:
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """A fitted classifier whose probabilities are its input."""

        classes_ = np.arange(12)

        def fit(self, x: Any, y: Any) -> Given:
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict(self, x: Any) -> Any:
            return x.argmax(1)

        def predict_proba(self, x: Any) -> Any:
            return x

    p, truth = drawn(500, 12, seed=3)
    theirs = SplitConformalClassifier(
        Given(),
        confidence_level=coverage,
        conformity_score="aps",
        prefit=True,
        random_state=_Ones(),
    ).conformalize(p[:200], truth[:200])
    _, sets = theirs.predict_set(p[200:], conformity_score_params={"include_last_label": True})
    ours = sets_of(p[200:], fitted(p[:200], truth[:200]), coverage)
    assert (ours == sets[:, :, 0]).all()
    assert 1 < ours.sum(1).mean() < 12


def test_too_few_images_are_refused_with_the_number_needed() -> None:
    p, truth = drawn(8, 3, seed=0)
    with pytest.raises(CoverageError, match=r"0\.9 needs 9 images .* has 8 \(enough for 89%\)"):
        sets_of(p, fitted(p, truth), 0.9)
    assert sets_of(p, fitted(p, truth), 0.8).any(1).all()
    with pytest.raises(CoverageError, match="no images were kept out"):
        conformal.check_coverage(conformal.fit(p[:0], truth[:0], 3), head(3), 0.9)
    with pytest.raises(CoverageError, match="the class with the fewest images"):
        sets_of(p, fitted(p, truth), 0.8, class_wise=True)


def test_another_class_set_is_refused_and_another_order_is_not() -> None:
    p, truth = drawn(100, 3, seed=0)
    learned = fitted(p, truth)
    for columns in [(0, 1), (0, 1, 2, -1)]:
        with pytest.raises(CoverageError, match="classes are not those"):
            conformal.check_coverage(learned, HeadSpec(logit_scale=1.0, columns=columns), 0.9)
    bounds = conformal.check_coverage(
        learned, HeadSpec(logit_scale=1.0, columns=(2, 0, 1)), 0.6, class_wise=True
    )
    plain = conformal.check_coverage(learned, head(3), 0.6, class_wise=True)
    assert (bounds == plain[[2, 0, 1]]).all()


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, float("nan"), "0.9", True])
def test_a_coverage_that_is_none_is_refused(coverage: Any) -> None:
    p, truth = drawn(100, 3, seed=0)
    with pytest.raises(OptionError, match="coverage must"):
        conformal.check_coverage(fitted(p, truth), head(3), coverage)


def test_a_card_keeps_at_most_so_many_scores() -> None:
    p, truth = drawn(conformal.MOST + 500, 3, seed=0)
    assert sum(map(len, fitted(p, truth).scores)) == conformal.MOST
