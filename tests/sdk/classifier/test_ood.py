"""OODScore: each of its terms against a plain reference, and leave-one-out against refits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fewclip.ood import OODScore, TextFeatures, from_arrays, ood_parts, to_arrays
from fewclip.ood.features import unit
from fewclip.ood.gaussian import IMAGES_A_DIRECTION, SHRINKAGE, principal
from fewclip.ood.neighbours import (
    density,
    density_leave_one_out,
    local_distances,
    similarities_of_others,
)
from fewclip.ood.text import LEAST_RATIO


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


def score(
    fitted: OODScore, parts: Sequence[np.ndarray], columns: Sequence[int] | None = None
) -> np.ndarray:
    return fitted.score_and_bound(parts, columns)[0]


def named_bound(fitted: OODScore, parts: Sequence[np.ndarray]) -> np.ndarray:
    """With the three classes of `sample` and one that was typed in."""
    bound = fitted.score_and_bound(parts, (0, 1, 2, -1))[1]
    assert bound is not None
    return bound


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
    np.testing.assert_allclose(score(fitted, (others,)), wanted, rtol=1e-4, atol=1e-4)
    assert fitted.own.mean() == pytest.approx(0, abs=1e-9)
    assert fitted.own.std() == pytest.approx(1)


def test_a_tuned_tower_is_scaled_by_images_it_was_not_trained_on(sample: Sample) -> None:
    x, labels, own = sample
    drawn = unit(0.9 * np.stack([x[labels == k].mean(0) for k in labels]) + 0.1 * x)  # collapsed
    plain = OODScore.fit((drawn,), labels)
    tuned = OODScore.fit((drawn,), labels, tuned=(own,))
    assert score(plain, (own,)).mean() < -3  # nothing like the training images
    assert score(tuned, (own,)).mean() > -1


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
    seen = score(fitted, (*own[:3], odd))
    assert np.median(seen) < np.quantile(score(fitted, own), 0.1)


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
    found = fitted.terms(own)["principal_1"][:, 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_principal_directions_of_more_images_than_dimensions_are_the_same() -> None:
    x = np.random.default_rng(0).standard_normal((40, 50))
    _, few = principal(x[:, :39])
    _, many = principal(x)
    assert few.shape == (5, 39)
    assert many.shape == (5, 50)
    _, wide = principal(np.pad(x[:, :30], ((0, 0), (0, 20))))  # by the other way
    _, narrow = principal(x[:, :30])
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
    assert np.median(score(fitted, (own,))) > score(fitted, (outside,)).max()


def test_a_removed_class_no_longer_counts(sample: Sample) -> None:
    x, labels, own = sample
    fitted = OODScore.fit((x,), labels)
    kept = score(fitted, (own,), (0, 2))
    assert kept[labels == 1].max() < np.median(kept[labels != 1])
    assert np.isneginf(score(fitted, (own,), ())).all()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("count", [1, 4])
def test_one_shot_and_one_image_still_give_numbers(n: int, count: int) -> None:
    fitted = OODScore.fit((np.eye(8)[:n],) * count, np.arange(n))
    scores = score(fitted, (np.eye(8),) * count)
    assert np.isfinite(scores).all()
    assert scores[:n].min() > scores[n:].max()


def test_it_comes_back_from_its_arrays(sample: Sample, parts: TwoSamples) -> None:
    train, own = parts
    fitted = OODScore.fit(train, sample[1], texts=texts())
    again = from_arrays(to_arrays(fitted))
    assert again is not None
    np.testing.assert_array_equal(score(again, own), score(fitted, own))
    np.testing.assert_array_equal(named_bound(again, own), named_bound(fitted, own))
    assert from_arrays({}) is None


@pytest.mark.parametrize(
    "name",
    [
        "ood_whiten",
        "ood_group_center",
        "ood_images_1",
        "ood_center",
        "ood_principal_mean_1",
        "ood_local",
        "ood_text_classes",
    ],
)
def test_arrays_that_do_not_fit_are_refused(sample: Sample, parts: TwoSamples, name: str) -> None:
    arrays = to_arrays(OODScore.fit(parts[0], sample[1], texts=texts()))
    with pytest.raises(ValueError, match="do not fit"):
        from_arrays(arrays | {name: arrays[name][:-1]})


def texts(scale: float = 20.0) -> TextFeatures:
    """Three classes and six negative labels of 16 features."""
    rng = np.random.default_rng(3)
    rows = (scale * unit(rng.standard_normal((15, 16)))).astype(np.float16)
    return TextFeatures(rows[:3], rows[3:9], rows[9:], np.array([0.5], np.float32))


def test_a_name_has_to_beat_the_mean_negative_label(sample: Sample) -> None:
    x, labels, own = sample
    words = texts()
    bound = named_bound(OODScore.fit((x,), labels, texts=words), (own,))
    negatives = np.exp(own @ words.named_negatives.astype(np.float64).T)
    np.testing.assert_allclose(np.exp(bound - 0.5), LEAST_RATIO * negatives.mean(1))
    assert np.isposinf(named_bound(OODScore.fit((x,), labels), (own,))).all()


def test_the_less_an_image_varies_like_own_ones_the_surer_the_name_must_be(
    sample: Sample, parts: TwoSamples
) -> None:
    train, own = parts
    fitted = OODScore.fit(train, sample[1], texts=texts())
    middle = train[3].mean(0)
    plain = named_bound(fitted, own)
    odd = named_bound(fitted, (*own[:3], middle + 30 * (own[3] - middle)))
    assert (odd >= plain).all()
    assert np.median(odd - plain) > 0.1


def test_an_image_is_as_near_as_its_neighbours_are_to_theirs(
    sample: Sample, parts: TwoSamples
) -> None:
    train, own = parts
    fitted = OODScore.fit(train, sample[1])
    images = fitted.images[1].astype(np.float64)

    def distance(x: np.ndarray, others: np.ndarray) -> tuple[float, np.ndarray]:
        near = np.argsort(-(others @ x))[:5]
        return float(1 - (others @ x)[near].mean()), near

    found = fitted.terms(own)["density"][:, 0]
    for i in range(0, 30, 7):
        mine, near = distance(own[1][i], images)
        its = [distance(images[j], np.delete(images, j, 0))[0] for j in near]
        assert found[i] == pytest.approx(np.log(np.mean(its) / mine), abs=0.02)


def test_the_density_left_out_is_that_of_a_refit(sample: Sample, parts: TwoSamples) -> None:
    images = parts[0][1].astype(np.float16)
    found = density_leave_one_out(similarities_of_others(images))
    for i in range(0, 30, 7):
        others = np.delete(images, i, 0)
        local = local_distances(similarities_of_others(others))
        similar = images[i : i + 1].astype(np.float64) @ others.astype(np.float64).T
        assert found[i] == pytest.approx(density(similar, local)[0])


def test_parts_are_normalised_one_by_one() -> None:
    rng = np.random.default_rng(0)
    features, intermediate = rng.standard_normal((4, 6)), rng.standard_normal((4, 15))
    parts = ood_parts(features, intermediate)
    assert [part.shape for part in parts] == [(4, 6), (4, 6), (4, 3), (4, 3)]
    for part in parts:
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), 1)
    assert len(ood_parts(features, None)) == 1
