"""Wrong labels: their share is estimated, they are found, and right ones are left in peace."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import fewclip
from fewclip.check.labels import doubt_labels
from fewclip.check.noise import estimate_noise
from fewclip.errors import MissingExtraError
from fewclip.samples import digits


def flipped(labels: np.ndarray, classes: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    wrong = labels.copy()
    some = rng.choice(len(labels), round(rate * len(labels)), replace=False)
    wrong[some] = (labels[some] + rng.integers(1, classes, len(some))) % classes
    return wrong


def clusters(images: int, classes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features of classes that overlap a little, and the labels."""
    labels = np.arange(images) % classes
    centres = 1.2 * rng.standard_normal((classes, 8))
    return centres[labels] + rng.standard_normal((images, 8)), labels


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_the_rate_of_wrong_labels_is_estimated_and_most_are_found(rate: float) -> None:
    rng = np.random.default_rng(0)
    features, truth = clusters(400, 5, rng)
    given = flipped(truth, 5, rate, rng)
    noise = doubt_labels(features, given)
    assert noise is not None
    assert noise.rate == pytest.approx(rate, abs=0.04)
    listed, wrong = noise.wrong > 0.4, given != truth
    assert (listed & wrong).sum() > 0.6 * wrong.sum()
    assert (listed & wrong).sum() > 0.7 * listed.sum()


def test_right_labels_are_left_in_peace_even_where_classes_overlap() -> None:
    rng = np.random.default_rng(0)
    features, labels = clusters(400, 5, rng)
    noise = doubt_labels(features, labels)
    assert noise is not None
    assert noise.rate < 0.03
    assert (noise.wrong > 0.4).sum() <= 2


def test_a_wrong_label_is_as_probable_as_bayes_says() -> None:
    """With labels drawn from known probabilities and flipped at a known rate."""
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.full(4, 0.3), 4000)
    truth = np.array([rng.choice(4, p=p) for p in proba])
    given = flipped(truth, 4, 0.15, rng)
    noise = estimate_noise(proba, given)
    assert noise.rate == pytest.approx(0.15, abs=0.03)
    sure = noise.wrong > 0.8
    assert noise.wrong[sure].mean() == pytest.approx((given != truth)[sure].mean(), abs=0.05)
    own = proba[np.arange(4000), given]
    expected = 0.15 / 3 * (1 - own) / (0.85 * own + 0.15 / 3 * (1 - own))
    np.testing.assert_allclose(noise.wrong, expected, atol=0.12)


def test_every_doubtful_label_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    images = {name: [digits.draw(name, i) for i in range(6)] for name in ("one", "zero")}
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(MissingExtraError, match=r"fewclip\[check\]"):
        fewclip.check(images, thorough=True)
    assert fewclip.check(images).classes == {"one": 6, "zero": 6}
