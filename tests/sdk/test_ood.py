"""OODScore: distance to what was trained on, against a plain reference."""

from __future__ import annotations

import numpy as np
import pytest

from fewclip.contract import Calibration, HeadSpec
from fewclip.decide import fit_calibration, in_distribution_score
from fewclip.ood import SHRINKAGE, OODScore


def unit(rng: np.random.Generator, centres: np.ndarray, labels: np.ndarray) -> np.ndarray:
    x = centres[labels] + 0.3 * rng.standard_normal((len(labels), centres.shape[1]))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 16))
    labels = np.repeat([0, 1, 2], 10)
    return unit(rng, centres, labels), labels, unit(rng, centres, labels)


def test_it_is_the_mahalanobis_distance_to_the_nearest_class(
    sample: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    x, labels, others = sample
    means = np.stack([x[labels == c].mean(0) for c in range(3)])
    spread = x - means[labels]
    covariance = spread.T @ spread / len(x)
    shrunk = (1 - SHRINKAGE) * covariance
    shrunk += SHRINKAGE * np.trace(covariance) / 16 * np.eye(16)
    inverse = np.linalg.inv(shrunk)
    gaps = others[:, None] - means
    wanted = -np.einsum("bmd,de,bme->bm", gaps, inverse, gaps).min(1) / 16
    np.testing.assert_allclose(OODScore.fit(x, labels).score(others), wanted, rtol=1e-4)


def test_own_images_are_more_familiar_than_others(
    sample: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    x, labels, own = sample
    strangers = np.random.default_rng(1).standard_normal((30, 16))
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    ood_score = OODScore.fit(x, labels)
    assert np.median(ood_score.score(own)) > ood_score.score(strangers).max()


@pytest.mark.parametrize("n", [1, 3])
def test_one_shot_and_one_image_still_give_numbers(n: int) -> None:
    x = np.eye(8)[:n]
    ood_score = OODScore.fit(x, np.arange(n))
    scores = ood_score.score(np.eye(8))
    assert np.isfinite(scores).all()
    assert scores[:n].min() > scores[n:].max()


def test_a_class_known_by_name_alone_is_judged_by_its_name() -> None:
    head = HeadSpec(logit_scale=100.0, columns=(0, 1, -1))
    calibration = Calibration(logit_center=20, logit_spread=2, ood_center=-1)
    itm = [[25.0, 1, 1], [1, 1, 24], [1, 1, 16]]
    scores = in_distribution_score(itm, None, head, calibration, [-3.0, -3.0, -3.0])
    np.testing.assert_allclose(scores, [-2.0, 2.0, -2.0])


def test_calibration_accepts_most_of_the_own_images() -> None:
    rng = np.random.default_rng(0)
    itm = rng.standard_normal((200, 3))
    seen = rng.standard_normal(200)
    head = HeadSpec(logit_scale=100.0, columns=(0, 1, 2))
    calibration = fit_calibration(itm, None, itm.argmax(1), head, seen)
    assert calibration.threshold is not None
    scores = in_distribution_score(itm, None, head, calibration, seen)
    assert (scores >= calibration.threshold).mean() == pytest.approx(0.95, abs=0.01)
