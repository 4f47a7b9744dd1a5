"""OODScore: each of its terms against a plain reference, and leave-one-out against refits."""

from __future__ import annotations

import numpy as np
import pytest

from fewclip.ood import IMAGES_A_DIRECTION, SHRINKAGE, OODScore, _principal, ood_parts, unit


def draw(rng: np.random.Generator, centres: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return unit(centres[labels] + 0.3 * rng.standard_normal((len(labels), centres.shape[1])))


Sample = tuple[np.ndarray, np.ndarray, np.ndarray]
TwoSamples = tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]


@pytest.fixture
def sample() -> Sample:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 16))
    labels = np.repeat([0, 1, 2], 10)
    return draw(rng, centres, labels), labels, draw(rng, centres, labels)


def terms(fitted: OODScore, x: np.ndarray) -> np.ndarray:
    """(2, B, C) similarity to the five nearest and minus the log of the Mahalanobis distance."""
    own, labels = fitted.images[0].astype(np.float64), fitted.labels
    near = np.stack(
        [np.sort(x @ own[labels == c].T, axis=1)[:, -5:].mean(1) for c in np.unique(labels)], 1
    )
    gaps = (x @ fitted.whiten)[:, None] - fitted.means
    found: np.ndarray = np.stack([near, -np.log((gaps**2).sum(2) + 1e-9)])
    return found


def standard(fitted: OODScore, found: np.ndarray) -> np.ndarray:
    """(2, B, C) terms -> (B,), as the class's docstring has it for output features alone."""
    scaled = (found - fitted.center[:, None, None]) / fitted.spread[:, None, None]
    best = scaled.sum(0).max(1)
    score: np.ndarray = (best - fitted.group_center[0]) / fitted.group_spread[0]
    return score


def test_it_is_the_best_class_of_the_standardized_sum(sample: Sample) -> None:
    x, labels, others = sample
    fitted = OODScore.fit((x,), labels)
    wanted = standard(fitted, terms(fitted, others))
    np.testing.assert_allclose(fitted.score((others,)), wanted, rtol=1e-4, atol=1e-4)
    assert fitted.own.mean() == pytest.approx(0, abs=1e-9)
    assert fitted.own.std() == pytest.approx(1)


def test_a_tuned_tower_is_scaled_by_images_it_was_not_trained_on(sample: Sample) -> None:
    x, labels, own = sample
    drawn = unit(0.9 * np.stack([x[labels == k].mean(0) for k in labels]) + 0.1 * x)  # collapsed
    plain = OODScore.fit((drawn,), labels)
    tuned = OODScore.fit((drawn,), labels, tuned=(own,))
    assert plain.score((own,)).mean() < -3  # nothing like the training images
    assert tuned.score((own,)).mean() > -1


@pytest.fixture
def parts(sample: Sample) -> TwoSamples:
    """All four parts of training images and of others like them."""
    x, labels, own = sample
    rng = np.random.default_rng(2)
    fields = []
    for width in (16, 8, 8):
        centres = rng.standard_normal((3, width))
        fields.append((draw(rng, centres, labels), draw(rng, centres, labels)))
    return (x, *(a for a, _ in fields)), (own, *(b for _, b in fields))


def test_images_must_vary_as_own_images_do_and_not_only_resemble_one(
    sample: Sample, parts: TwoSamples
) -> None:
    train, own = parts
    fitted = OODScore.fit(train, sample[1])
    assert len(fitted.group_center) == 3
    middle = train[3].mean(0)
    odd = middle + 4 * (own[3] - middle)
    seen = fitted.score((*own[:3], odd))
    assert np.median(seen) < np.quantile(fitted.score(own), 0.1)


def test_the_principal_distance_is_mahalanobis_along_the_first_directions(
    sample: Sample, parts: TwoSamples
) -> None:
    train, own = parts
    fitted = OODScore.fit(train, sample[1])
    x = train[3]
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    count = len(x) // IMAGES_A_DIRECTION
    along = (own[3] - x.mean(0)) @ vectors[:, ::-1][:, :count]
    wanted = -np.log((along**2 / values[::-1][:count]).mean(1))
    np.testing.assert_allclose(fitted._terms(own)[-1][:, 0], wanted, rtol=1e-4, atol=1e-4)


def test_principal_directions_of_more_images_than_dimensions_are_the_same() -> None:
    x = np.random.default_rng(0).standard_normal((40, 50))
    _, few = _principal(x[:, :39])
    _, many = _principal(x)
    assert few.shape == (5, 39)
    assert many.shape == (5, 50)
    _, wide = _principal(np.pad(x[:, :30], ((0, 0), (0, 20))))  # by the other way
    _, narrow = _principal(x[:, :30])
    np.testing.assert_allclose(np.abs(wide[:, :30]), np.abs(narrow), atol=1e-5)


def test_the_distance_is_mahalanobis(sample: Sample) -> None:
    x, labels, others = sample
    means = np.stack([x[labels == c].mean(0) for c in range(3)])
    covariance = (x - means[labels]).T @ (x - means[labels]) / len(x)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / 16 * np.eye(16)
    gaps = others[:, None] - means
    wanted = -np.log(np.einsum("bmd,de,bme->bm", gaps, np.linalg.inv(shrunk), gaps) / 16)
    found = terms(OODScore.fit((x,), labels), others)[1]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_leave_one_out_scores_are_close_to_those_of_refits(sample: Sample) -> None:
    x, labels, _ = sample
    fitted = OODScore.fit((x,), labels)
    for i in range(0, 30, 7):
        rest = np.arange(30) != i
        without = OODScore.fit((x[rest],), labels[rest])
        found = standard(fitted, terms(without, x[i : i + 1]))
        assert fitted.own[i] == pytest.approx(float(found[0]), abs=0.1)


def test_own_images_score_above_others(sample: Sample) -> None:
    x, labels, own = sample
    outside = unit(np.random.default_rng(1).standard_normal((30, 16)))
    fitted = OODScore.fit((x,), labels)
    assert np.median(fitted.score((own,))) > fitted.score((outside,)).max()


def test_a_removed_class_no_longer_counts(sample: Sample) -> None:
    x, labels, own = sample
    fitted = OODScore.fit((x,), labels)
    kept = fitted.score((own,), (0, 2))
    assert kept[labels == 1].max() < np.median(kept[labels != 1])
    assert np.isneginf(fitted.score((own,), ())).all()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("count", [1, 4])
def test_one_shot_and_one_image_still_give_numbers(n: int, count: int) -> None:
    fitted = OODScore.fit((np.eye(8)[:n],) * count, np.arange(n))
    scores = fitted.score((np.eye(8),) * count)
    assert np.isfinite(scores).all()
    assert scores[:n].min() > scores[n:].max()


def test_it_comes_back_from_its_arrays(sample: Sample, parts: TwoSamples) -> None:
    train, own = parts
    fitted = OODScore.fit(train, sample[1])
    again = OODScore.from_arrays(fitted.to_arrays())
    assert again is not None
    np.testing.assert_array_equal(again.score(own), fitted.score(own))
    assert OODScore.from_arrays({}) is None


@pytest.mark.parametrize(
    "name", ["ood_whiten", "ood_group_center", "ood_images_1", "ood_center", "ood_principal_mean_1"]
)
def test_arrays_that_do_not_fit_are_refused(sample: Sample, parts: TwoSamples, name: str) -> None:
    arrays = OODScore.fit(parts[0], sample[1]).to_arrays()
    with pytest.raises(ValueError, match="do not fit"):
        OODScore.from_arrays(arrays | {name: arrays[name][:-1]})


def test_parts_are_normalised_one_by_one() -> None:
    rng = np.random.default_rng(0)
    features, intermediate = rng.standard_normal((4, 6)), rng.standard_normal((4, 15))
    parts = ood_parts(features, intermediate)
    assert [part.shape for part in parts] == [(4, 6), (4, 6), (4, 3), (4, 3)]
    for part in parts:
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), 1)
    assert len(ood_parts(features, None)) == 1
