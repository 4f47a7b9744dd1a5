"""Labels that look wrong to models of the other images, outliers of a class, overlapping classes.

Every image is classified by a model that did not learn from it: Gaussian discriminant analysis with
a shrunk covariance on frozen features, five times five folds, its confidence fitted to what the
folds show. How many labels are wrong, and which, is estimated from that (`fewclip.check.noise`),
then again by models that leave out the labels found wrong. `thorough` lists what confident learning
doubts instead (Northcutt, Jiang, Chuang, JAIR 2021, arXiv 1911.00068; cleanlab): more of the wrong
labels, and with a weak backbone far more of the right ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from fewclip.check.issue import Issue
from fewclip.check.noise import LabelNoise, estimate_noise
from fewclip.check.photos import Photo
from fewclip.errors import MissingExtraError
from fewclip.heads import (
    Head,
    assign_folds,
    fit_gda,
    fit_mixture,
    head_features,
    out_of_fold,
)
from fewclip.images import Image
from fewclip.system.blas import one_blas_thread

if TYPE_CHECKING:
    from fewclip.backbone import Backbone

DOUBTED = 0.4  # a label is reported from this probability of being wrong on
SURE = 0.7  # a new label is suggested from this probability on, else removal
FOLDS = 5
# Divisions into folds whose probabilities are averaged. A single one reports 1.5 times (CIFAR-10)
# and twice (hand signs) as many clean training photos, and 0 to 4 points more of the wrong labels.
DIVISIONS = 5
ROUNDS = 2  # how often the models are fitted again without the labels found wrong
UNLIKE = 5.0  # robust standard deviations
OVERLAP = 0.35  # mean share of two classes' images that are mistaken for the other class
BATCH = 64

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def tower_features(backbone: Backbone, images: Sequence[Image]) -> Floats:
    """(N, L) of `head_features`: image features and mean patch tokens at three depths.

    Intermediate blocks tell images apart even in a domain that CLIP does not know.
    """
    import torch

    from fewclip.preprocess import preprocess

    parts = []
    for first in range(0, len(images), BATCH):
        pixels = torch.from_numpy(preprocess(images[first : first + BATCH], backbone.preprocess))
        with torch.inference_mode():
            taps = backbone.new_taps()
            found = backbone.encode_image(pixels.to(backbone.device), taps)
            intermediate = backbone.intermediate(taps)
        parts.append(
            head_features(
                found.float().cpu().numpy(),
                None if intermediate is None else intermediate.cpu().numpy(),
            )
        )
    return np.concatenate(parts)


@one_blas_thread
def doubt_labels(features: Floats, labels: Ints, seed: int = 0) -> LabelNoise | None:
    """The probability that each of N labels is wrong, by models that did not see the image.

    None if a class has only one image. `features` (N, L), `labels` (N,) in 0..M-1.
    """
    folds = min(FOLDS, int(np.bincount(labels).min()))
    if folds < 2:
        return None

    trusted = np.ones(len(labels), np.bool_)
    for _ in range(1 + ROUNDS):
        rng = np.random.default_rng(seed)
        found = [_by_other_folds(features, labels, trusted, folds, rng) for _ in range(DIVISIONS)]
        noise = estimate_noise(np.mean(found, axis=0), labels)
        if (trusted == (noise.wrong < 0.5)).all():
            break
        trusted = noise.wrong < 0.5
    return noise


def _by_other_folds(
    features: Floats,
    labels: Ints,
    trusted: npt.NDArray[np.bool_],
    folds: int,
    rng: np.random.Generator,
) -> Floats:
    """(N, M) probabilities by models of the other folds' trusted images, for one division."""
    classes = int(labels.max()) + 1

    def fit(train: Ints) -> Head:
        some = train[trusted[train]]
        if len(np.unique(labels[some])) < classes:  # a class without any trusted image
            some = train
        return fit_gda(features[some], labels[some], some, classes)

    logits = out_of_fold(fit, features, assign_folds(labels, folds, rng), classes)
    proba: Floats = softmax(fit_mixture(logits, [], labels).logits(logits, []), axis=1)
    return proba


def wrong_labels(
    photos: Sequence[Photo],
    features: Floats,
    noise: LabelNoise,
    labels: Ints,
    classes: Sequence[str],
    *,
    thorough: bool = False,
) -> Iterator[Issue]:
    """Photos whose label is likely wrong, the most certain first.

    Raises:
        MissingExtraError: `thorough`, and cleanlab is not installed.
    """
    doubted = np.flatnonzero(noise.wrong > DOUBTED)
    if thorough:
        doubted = np.union1d(doubted, _confident_learning(noise.proba, labels))
    others = noise.proba.copy()
    others[np.arange(len(labels)), labels] = -1.0
    for i in map(int, doubted[np.argsort(-noise.wrong[doubted], kind="stable")]):
        own, best = float(noise.proba[i, labels[i]]), int(others[i].argmax())
        likely = float(noise.proba[i, best])
        near = _nearest(features, i, np.flatnonzero(labels == best))
        action = "relabel" if likely > SURE else "remove"
        yield Issue(
            kind="label",
            source=photos[i].source,
            label=photos[i].label,
            split=photos[i].split,
            score=float(noise.wrong[i]),
            reason=f"more like {classes[best]!r} ({likely:.0%}) than "
            f"{classes[labels[i]]!r} ({own:.0%}), by a model of the other images",
            advice=f"if it shows {classes[best]!r}, move it there; if unclear, leave it out",
            neighbours=tuple(photos[j].source for j in near),
            action=action if noise.wrong[i] > DOUBTED else "",
            new_label=classes[best],
            image=photos[i].image,
        )


def _confident_learning(proba: Floats, labels: Ints) -> Ints:
    """Indices of the labels that confident learning doubts."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise MissingExtraError("listing every doubtful label", "check") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where a class has few images
        return np.flatnonzero(find_label_issues(labels, proba, n_jobs=1))


def unlike_their_class(photos: Sequence[Photo], features: Floats, labels: Ints) -> Iterator[Issue]:
    """Photos far from all others of their class, compared with how far apart those are.

    `features` is (N, L), `labels` (N,).
    """
    x = features - features.mean(0)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    likeness = np.full(len(photos), np.nan)
    for c in np.unique(labels):
        own = np.flatnonzero(labels == c)
        if len(own) < 4:
            continue
        close = x[own] @ x[own].T
        np.fill_diagonal(close, -np.inf)
        likeness[own] = np.sort(close, axis=1)[:, -3:].mean(1)
        likeness[own] -= np.median(likeness[own])
    known = likeness[~np.isnan(likeness)]
    if not len(known):
        return
    usual = max(1.4826 * float(np.median(np.abs(known))), 0.02)
    for i in map(int, np.flatnonzero(likeness < -UNLIKE * usual)):
        near = _nearest(features, i, np.flatnonzero(labels == labels[i]))
        yield Issue(
            kind="outlier",
            source=photos[i].source,
            label=photos[i].label,
            split=photos[i].split,
            score=min(1.0, -likeness[i] / usual / 10),
            reason=f"unlike all other images of {photos[i].label!r}",
            advice="look at it; leave it out if it does not show the class",
            neighbours=tuple(photos[j].source for j in near),
            image=photos[i].image,
        )


def overlapping(
    proba: Floats, labels: Ints, classes: Sequence[str], name_likeness: Floats
) -> Iterator[Issue]:
    """Pairs of classes whose images are mistaken for each other.

    Args:
        proba: (N, M) by models that did not see the image.
        labels: (N,) as given, 0..M-1.
        name_likeness: (M, M) cosine of the names' text features.
    """
    m = len(classes)
    confusion = np.zeros((m, m))
    np.add.at(confusion, (labels, proba.argmax(1)), 1)
    rates = confusion / confusion.sum(1, keepdims=True)
    for a in range(m):
        for b in range(a + 1, m):
            share = (rates[a, b] + rates[b, a]) / 2
            if share < OVERLAP:
                continue
            alike = name_likeness[a, b] > 0.95
            yield Issue(
                kind="overlap",
                source=f"{classes[a]} / {classes[b]}",
                score=min(1.0, float(share) * 2),
                reason=f"{share:.0%} of their images are taken for the other class"
                + (", and the backbone confuses their names" if alike else ""),
                advice="merge them, add images that show the difference, or say it in a phrase "
                "(classes={label: phrase})",
            )


def _nearest(
    features: Floats, index: int, among: npt.NDArray[np.int64], most: int = 3
) -> list[int]:
    others = among[among != index]
    close = features[others] @ features[index]
    return [int(j) for j in others[np.argsort(-close)[:most]]]
