"""Heads on frozen features: scikit-learn as the reference, and the weight against the text."""

from __future__ import annotations

import resource
import tempfile

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from fewclip.heads import (
    FeatureSample,
    Head,
    Rows,
    SampleBuilder,
    assign_folds,
    disk_rows,
    fit_gda,
    fit_gda_heads,
    fit_logistic,
    fit_mixture,
    fit_stacked,
    log_loss,
)
from fewclip.heads.gda import covariance_and_shrinkage, shrunk
from fewclip.heads.linear import BLOCK


def draw(n: int = 20, width: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`n` points of each of three overlapping classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), n)
    centres = rng.standard_normal((3, width))
    spread = rng.standard_normal((width, width)) / np.sqrt(width)
    return centres[labels] + rng.standard_normal((3 * n, width)) @ spread * 1.5, labels


def test_gda_is_linear_discriminant_analysis_with_the_same_covariance() -> None:
    x, labels = draw()
    means = np.stack([x[labels == c].mean(0) for c in range(3)])
    covariance = shrunk(*covariance_and_shrinkage(x, np.arange(60), 57, means, labels))

    class Same:
        def fit(self, _: np.ndarray) -> Same:
            self.covariance_ = covariance
            return self

    reference = LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=Same(), priors=[1 / 3] * 3
    ).fit(x, labels)
    logits = fit_gda(x, labels, np.arange(60), 3)(x)
    wanted = reference.decision_function(x)
    centred = logits - logits.mean(1, keepdims=True)
    np.testing.assert_allclose(centred, wanted - wanted.mean(1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("n", [30, BLOCK], ids=["one block", "blocks"])
def test_shrinkage_is_ledoit_wolfs(n: int) -> None:
    x, _ = draw(n)
    wanted, _ = ledoit_wolf(x - x.mean(0), assume_centered=True)
    mean, same = x.mean(0, keepdims=True), np.zeros(3 * n, np.int64)
    found = shrunk(*covariance_and_shrinkage(x, np.arange(3 * n), 3 * n, mean, same))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_full_shrinkage_is_the_nearest_mean() -> None:
    x, labels = draw(n=6)
    _, nearest = fit_gda_heads(x, labels, np.arange(18), 3, (1.0, 1e9))
    means = np.stack([x[labels == c].mean(0) for c in range(3)])
    distances = np.linalg.norm(x[:, None] - means, axis=2)
    assert (nearest(x).argmax(1) == distances.argmin(1)).all()


@pytest.mark.parametrize("n", [6, BLOCK // 6], ids=["one block", "blocks"])
def test_views_of_an_image_count_as_one_image(n: int) -> None:
    x, labels = draw(n)
    once = fit_gda(x, labels, np.arange(3 * n), 3)
    images = np.repeat(np.arange(3 * n), 3)
    thrice = fit_gda(np.repeat(x, 3, 0), np.repeat(labels, 3), images, 3)
    np.testing.assert_allclose(thrice.weight, once.weight, rtol=1e-9)


@pytest.mark.parametrize("width", [5, 120], ids=["more rows", "more columns"])
def test_logistic_regression_is_scikit_learns(width: int) -> None:
    x, labels = draw(width=width)
    head = fit_logistic(x, labels, 3, strength=2.0)
    reference = LogisticRegression(C=2.0, max_iter=5000, tol=1e-8).fit(x, labels)
    ours, theirs = head(x), reference.decision_function(x)
    gap = (ours - ours.mean(1, keepdims=True)) - (theirs - theirs.mean(1, keepdims=True))
    assert np.abs(gap).max() < 0.02


def test_with_many_images_the_mixture_is_the_best_of_its_factors() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=4000)
    itm, head = rng.standard_normal((2, 4000, 4))
    itm[np.arange(4000), labels] += 1.0
    head[np.arange(4000), labels] += 2.0
    head *= 50  # a scale of its own must not matter
    mixture = fit_mixture(itm, [head], labels)
    best = log_loss(mixture.logits(itm, [head]), labels).mean()
    for text, factor in [(1.1, 1.0), (0.9, 1.0), (1.0, 1.1), (1.0, 0.9)]:
        moved = text * mixture.text * itm + factor * mixture.heads[0] * head
        assert best <= log_loss(moved, labels).mean() + 1e-4
    assert 0.5 < mixture.weight < 1


def test_the_mixture_is_fitted_in_blocks_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = draw()
    itm = np.random.default_rng(1).standard_normal((60, 3))
    logits = [fit_gda(x, labels, np.arange(60), 3)(x)]
    whole = fit_mixture(itm, logits, labels)
    monkeypatch.setattr("fewclip.heads.mixture.NUMBERS", 21)  # 7 images
    blocks = fit_mixture(itm, logits, labels)
    np.testing.assert_allclose([blocks.text, *blocks.heads], [whole.text, *whole.heads], rtol=1e-5)


def test_one_absorbed_head_answers_as_the_mixture() -> None:
    x, labels = draw()
    itm = np.random.default_rng(1).standard_normal((60, 3))
    heads = [fit_gda(x, labels, np.arange(60), 3), fit_logistic(x, labels, 3, 1.0)]
    mixture = fit_mixture(itm, [head(x) for head in heads], labels)
    fused = (1 - mixture.weight) * itm + mixture.weight * mixture.absorb(heads)(x)
    np.testing.assert_allclose(
        mixture.sharpness * fused, mixture.logits(itm, [head(x) for head in heads]), rtol=1e-6
    )


def test_useless_heads_leave_the_answer_to_the_text() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    itm = rng.standard_normal((120, 3))
    itm[np.arange(120), labels] += 3
    sample = FeatureSample(
        rng.standard_normal((120, 8)).astype(np.float32), None, labels, itm.astype(np.float32)
    )
    fitted = fit_stacked(sample, 3, lambda x, y, i: [fit_gda(x, y, i, 3)], rng)
    assert fitted.weight < 0.2
    assert np.isfinite(fitted.head.weight).all()


def test_a_dozen_images_do_not_hand_the_answer_to_a_text_that_knows_nothing() -> None:
    weights = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, labels = draw(n=4, width=60, seed=seed)
        itm = rng.standard_normal((12, 3)).astype(np.float32)
        sample = FeatureSample(x.astype(np.float32), None, labels, itm)
        fitted = fit_stacked(sample, 3, lambda x, y, i: [fit_gda(x, y, i, 3)], rng)
        weights.append(fitted.weight)
    assert min(weights) > 0.5


def test_a_dozen_images_leave_the_answer_to_a_text_that_knows_the_classes() -> None:
    weights = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(3), 4)
        itm = rng.standard_normal((12, 3)).astype(np.float32)
        itm[np.arange(12), labels] += 3
        noise = rng.standard_normal((12, 60)).astype(np.float32)
        sample = FeatureSample(noise, None, labels, itm)
        fitted = fit_stacked(sample, 3, lambda x, y, i: [fit_gda(x, y, i, 3)], rng)
        weights.append(fitted.weight)
    assert max(weights) < 0.1


def in_views(labels: np.ndarray, views: int, rng: np.random.Generator) -> FeatureSample:
    """Random features of a tower with intermediate ones, added in two batches."""
    builder = SampleBuilder(labels.tolist())
    for some in np.array_split(np.arange(len(labels)), 2):
        shape = (len(some), 1 + views)
        features = rng.standard_normal((*shape, 8)).astype(np.float32)
        middle = rng.standard_normal((*shape, 5 * 4)).astype(np.float32)
        builder.add(features, middle, rng.standard_normal((len(some), 3)).astype(np.float32))
    return builder.sample()


def test_rows_in_a_file_give_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.arange(3), 9)
    fits = []
    for limit in (disk_rows.IN_MEMORY, 0):
        monkeypatch.setattr(disk_rows, "IN_MEMORY", limit)
        sample = in_views(labels, views=2, rng=np.random.default_rng(1))
        assert sample.augmented is not None
        assert isinstance(sample.augmented.parts[0], disk_rows.DiskRows) == (limit == 0)

        def fit(rows: Rows, y: np.ndarray, images: np.ndarray) -> list[Head]:
            return [fit_gda(rows, y, images, 3), fit_logistic(rows, y, 3, 10.0)]

        fits.append(fit_stacked(sample, 3, fit, np.random.default_rng(2)))
    memory, disk = fits
    np.testing.assert_array_equal(memory.head.weight, disk.head.weight)
    logits = [each.out_of_fold.heads[0] for each in fits]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert logits[0].shape == (27, 3)


def test_rows_of_some_images_are_those_of_all_their_views() -> None:
    sample = in_views(np.arange(3).repeat(4), views=2, rng=np.random.default_rng(0))
    images = np.array([1, 5, 6, 11])
    rows = sample.rows(images, np.float64)
    whole = np.asarray(rows)
    np.testing.assert_array_equal(whole, sample.joined(images, np.float64, 20).reshape(12, -1))
    np.testing.assert_array_equal(rows[np.array([7, 2])], whole[[7, 2]])
    np.testing.assert_array_equal(rows.first_columns(8)[2:7], whole[2:7, :8])


@pytest.mark.parametrize("counts", [[1, 1, 1], [1, 4, 2], [2, 2, 2]])
def test_few_images_still_give_a_head(counts: list[int]) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), counts)
    sample = in_views(labels, views=4, rng=rng)
    fitted = fit_stacked(sample, 3, lambda x, y, i: [fit_gda(x, y, i, 3)], rng)
    assert np.isfinite(fitted.head.weight).all()
    assert 0 <= fitted.weight <= 1
    assert len(fitted.out_of_fold.images) == sum(count for count in counts if count > 1)


def test_folds_are_even_within_a_class_and_leave_a_single_image_out() -> None:
    fold = assign_folds(np.array([0] * 8 + [1]), 4, np.random.default_rng(0))
    assert sorted(np.bincount(fold[:8])) == [2, 2, 2, 2]
    assert fold[8] == -1


def test_a_head_scales() -> None:
    head = Head(np.eye(2), np.ones(2))
    np.testing.assert_allclose(head.scaled(3)(np.eye(2)), 3 * head(np.eye(2)))


def test_a_full_disk_is_reported_with_its_folder_and_the_cure() -> None:
    rows = disk_rows.DiskRows((1000, 1000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="temporary file of up to 4 MB; TMPDIR") as full:
            rows[:10] = np.zeros((10, 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.value.filename == tempfile.gettempdir()
