"""Labels doubted by what the other images teach, images unlike their class, classes that overlap.

Every image is judged by a model that did not learn from it: Gaussian discriminant analysis with a
shrunk covariance on frozen features, five folds, its confidence brought to what the folds show.
Which labels are wrong, confident learning says (Northcutt, Jiang, Chuang, JAIR 2021, arXiv
1911.00068; cleanlab). Where the model itself is weak that list is long and mostly wrong, so a label
is only reported where the model is nearly sure of another class (`OWN`, `OTHER`); `thorough` lists
all.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fewclip.check.photos import Photo
from fewclip.check.report import Issue
from fewclip.errors import MissingExtraError
from fewclip.images import Image

if TYPE_CHECKING:
    from fewclip.backbone import Backbone

OWN, OTHER = 0.05, 0.5  # probability of the label given, and of the likelier one
SURE = 0.7  # probability of the likelier class from which relabelling is suggested
FOLDS = 5
UNLIKE = 5.0  # robust standard deviations
OVERLAP = 0.35  # mean share of two classes' images that are taken for the other
BATCH = 64

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def tower_features(backbone: Backbone, images: Sequence[Image]) -> npt.NDArray[np.float32]:
    """(N, L): image features and mean patch tokens at three depths, each of length 1.

    What intermediate blocks see tells apart images of a domain that CLIP does not know.
    """
    import torch
    import torch.nn.functional as F

    from fewclip.preprocess import preprocess

    depth, parts = backbone.image_depth, []
    for first in range(0, len(images), BATCH):
        pixels = preprocess(images[first : first + BATCH], backbone.preprocess)
        with torch.inference_mode():
            x = backbone.image_embed(torch.from_numpy(pixels).to(backbone.device))
            seen, start = [], 0
            for stop in sorted({depth // 4, depth // 2, 3 * depth // 4}):
                x, start = backbone.image_blocks(x, start, stop), stop
                seen.append(F.normalize(x[:, 1:].mean(1), dim=-1))
            seen.append(F.normalize(backbone.image_features(x, start), dim=-1))
        parts.append(torch.cat(seen, 1).float().cpu().numpy())
    return np.concatenate(parts)


def out_of_fold(features: npt.NDArray[np.float32], labels: Ints, seed: int = 0) -> Floats | None:
    """(N, M) probabilities by models that did not see the image; None with one image of a class."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(labels)
    folds = min(FOLDS, int(counts.min()))
    if folds < 2:
        return None
    scores = np.zeros((len(labels), len(counts)))
    for train, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(
        features, labels
    ):
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        found = model.fit(features[train], labels[train]).decision_function(features[held])
        scores[held] = found if found.ndim == 2 else np.stack([-found / 2, found / 2], 1)
    return _calibrated(scores, labels)


def _calibrated(scores: Floats, labels: Ints) -> Floats:
    """softmax(scores / t) with the t of least negative log-likelihood."""
    rows = np.arange(len(labels))

    def at(log_t: float) -> Floats:
        z = scores / math.exp(log_t)
        p = np.exp(z - z.max(1, keepdims=True))
        return np.asarray(p / p.sum(1, keepdims=True))

    tried = np.linspace(-2, 4, 61)
    fits = [-np.log(at(t)[rows, labels] + 1e-12).mean() for t in tried]
    return at(float(tried[int(np.argmin(fits))]))


def wrong_labels(
    photos: Sequence[Photo],
    features: npt.NDArray[np.float32],
    proba: Floats,
    labels: Ints,
    classes: Sequence[str],
    *,
    thorough: bool = False,
) -> Iterator[Issue]:
    """Photos whose label is likely wrong, the surest first.

    Raises:
        MissingExtraError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise MissingExtraError("finding wrong labels", "check") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where a class has few images
        suspects = find_label_issues(
            labels, proba, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    for i in map(int, suspects):
        own, best = float(proba[i, labels[i]]), int(proba[i].argmax())
        sure = own < OWN and proba[i, best] > OTHER
        if best == labels[i] or not (sure or thorough):
            continue
        near = _nearest(features, i, np.flatnonzero(labels == best))
        yield Issue(
            kind="label",
            source=photos[i].source,
            label=photos[i].label,
            split=photos[i].split,
            score=float(proba[i, best]) * (1 - own),
            reason=f"more like {classes[best]!r} ({proba[i, best]:.0%}) than "
            f"{classes[labels[i]]!r} ({own:.0%}), judged by the other images",
            advice=f"if it shows {classes[best]!r}, move it there; if unclear, leave it out",
            neighbours=tuple(photos[j].source for j in near),
            action="relabel" if sure and proba[i, best] > SURE else "",
            new_label=classes[best],
            image=photos[i].image,
        )


def unlike_their_class(
    photos: Sequence[Photo], features: npt.NDArray[np.float32], labels: Ints
) -> Iterator[Issue]:
    """Photos far from every other photo of their class, beside how far those lie."""
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
    """Pairs of classes whose images are taken for each other.

    Args:
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
                + (", and the backbone hears the same in their names" if alike else ""),
                advice="merge them, add images that show the difference, or say it in a phrase "
                "(classes={label: phrase})",
            )


def _nearest(
    features: npt.NDArray[np.float32], index: int, among: npt.NDArray[np.int64], most: int = 3
) -> list[int]:
    others = among[among != index]
    close = features[others] @ features[index]
    return [int(j) for j in others[np.argsort(-close)[:most]]]
