"""One OOD score from scores that fail on different images. The decision is `fewclip.decide`'s.

Each term is standardized by its values on in-distribution images left out of the fit. Terms are
added class by class in groups; a group scores what its best class does, and the worst standardized
group decides, so an image must pass every one. Nothing is fitted on out-of-distribution images.
Training pulls features of the training images together, so a tuned tower is standardized by
in-distribution images that it was not trained on.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.ood.features import (
    DENSITY_PART,
    NEAREST_PARTS,
    PRINCIPAL_PARTS,
    AnyFloats,
    Floats,
    Ints,
)
from fewclip.ood.gaussian import (
    IMAGES_A_DIRECTION,
    along,
    along_out_of_fold,
    mahalanobis_leave_one_out,
    principal,
    similarity,
    squares_to,
)
from fewclip.ood.neighbours import (
    density,
    density_leave_one_out,
    local_distances,
    nearest,
    similarities_of_others,
)
from fewclip.ood.text import TextFeatures

MOST_IMAGES = 8192  # training images kept; of more, equally many of each class

# Terms of each group; the text counts twice beside four that look at the image alone.
_KNOW_CLASSES = ("nearest_0", "nearest_1", "nearest_2", "mahalanobis", "text", "text")
_OUTPUT = ("nearest_0", "mahalanobis", "density")
_KNOW_NONE = ("principal_0", "principal_1")

AnyInts = Ints | Sequence[int]
Terms = dict[str, Floats]  # name -> (B, C) or (B, 1)


@dataclasses.dataclass(frozen=True)
class OODScore:
    """Training images as a model keeps them.

    Attributes:
        images: per part (N, L_p) float16, L2-normalised; part 0 is the output features.
        labels: (N,) class of each image, the head's column.
        whiten, means: (D, D) and (C, D) float32: squared distances of whitened rows to the whitened
            class means are Mahalanobis distances over D.
        local: (N,) float32 `local_distances` in the part with a density; empty without
            intermediate features or with too few images.
        principal_mean, principal_axes: per part with principal directions (w,) and (K, w) float32,
            axes divided by the deviation along them; none where `local` is empty.
        texts: the text tower's term; None for none, and then no typed-in class is ever known.
        center, spread: (T,) mean and deviation of each term over in-distribution images.
        group_center, group_spread: (G,) of each group's score over in-distribution images.
        own: scores of in-distribution images that the fit has not seen; empty if there are none.
    """

    images: tuple[npt.NDArray[np.float16], ...]
    labels: Ints
    whiten: npt.NDArray[np.float32]
    means: npt.NDArray[np.float32]
    local: npt.NDArray[np.float32]
    principal_mean: tuple[npt.NDArray[np.float32], ...]
    principal_axes: tuple[npt.NDArray[np.float32], ...]
    texts: TextFeatures | None = None
    center: Floats = dataclasses.field(default_factory=lambda: np.zeros(0))
    spread: Floats = dataclasses.field(default_factory=lambda: np.ones(0))
    group_center: Floats = dataclasses.field(default_factory=lambda: np.zeros(0))
    group_spread: Floats = dataclasses.field(default_factory=lambda: np.ones(0))
    own: Floats = dataclasses.field(default_factory=lambda: np.zeros(0))

    @classmethod
    def fit(
        cls,
        parts: Sequence[AnyFloats],
        labels: npt.NDArray[Any],
        *,
        texts: TextFeatures | None = None,
        tuned: Sequence[AnyFloats] | None = None,
        unseen: Terms | None = None,
    ) -> OODScore:
        """Learn from `ood_parts` of N >= 1 images and their classes (N,).

        Args:
            texts: of the same towers, one row of `classes` for each column of the head.
            tuned: for an image tower that was trained on those images: `ood_parts` of
                in-distribution images that it was not trained on. Training pulled its own images
                together, so only others show how far such images really spread.
            unseen: where there is no `tuned`: `terms` of the N images, each by the score of a
                tower that was tuned without the image.
        """
        kept = _share(np.asarray(labels, np.int64))
        own_labels = np.asarray(labels, np.int64)[kept]
        names, index = np.unique(own_labels, return_inverse=True)
        plain = [np.asarray(part, np.float64)[kept] for part in parts]
        images = tuple(part.astype(np.float16) for part in plain[:NEAREST_PARTS])
        similar = [similarities_of_others(part) for part in images]
        distances, whiten, means = mahalanobis_leave_one_out(plain[0], index)
        several = len(parts) > 1 and len(kept) >= 2 * IMAGES_A_DIRECTION
        # The scores behind `unseen` had fewer images, perhaps too few for these terms.
        several &= unseen is None or "density" in unseen
        axes = [principal(plain[k]) for k in PRINCIPAL_PARTS if several]
        local = local_distances(similar[DENSITY_PART]) if several else np.zeros(0)
        score = cls(
            images,
            own_labels,
            whiten,
            means,
            local.astype(np.float32),
            tuple(mean for mean, _ in axes),
            tuple(directions for _, directions in axes),
            None if texts is None else dataclasses.replace(texts, classes=texts.classes[names]),
        )
        if tuned is not None and len(tuned[0]) > 1:
            return score._standardized(score.terms(tuned))
        if unseen is not None:
            return score._standardized(unseen)
        terms = {f"nearest_{k}": nearest(s, index, len(names)) for k, s in enumerate(similar)}
        terms |= {"mahalanobis": similarity(distances), **score._text_terms(plain[0])}
        if several:
            terms["density"] = density_leave_one_out(similar[DENSITY_PART])
            out_of_fold = [along_out_of_fold(plain[k], index) for k in PRINCIPAL_PARTS]
            terms |= {f"principal_{k}": term for k, term in enumerate(out_of_fold)}
        return score._standardized(terms)

    def score_and_bound(
        self, parts: Sequence[AnyFloats], columns: Sequence[int] | None = None
    ) -> tuple[Floats, Floats | None]:
        """How much B images resemble the training images, and the logit a name alone must reach.

        Args:
            parts: `ood_parts` of the images.
            columns: each class's column of the head, negative for a typed-in one; None for the
                trained classes and no others.

        Returns:
            (B,) float64, higher is more alike; -inf with no trained class left. And (B,) float64,
            the ITM logit from which an image is known as one of a typed-in class: infinite without
            `texts`, None if no class is typed in.
        """
        names, _ = self._classes
        scores = self._group_scores(self.terms(parts), names if columns is None else columns)
        scores = (scores - self.group_center[:, None]) / self.group_spread[:, None]
        worst = scores.min(0)
        if columns is None or min(columns, default=0) >= 0:
            return worst, None
        if self.texts is None:
            return worst, np.full(len(worst), np.inf)
        unlikeness = -scores[-1] if self.groups[-1] == _KNOW_NONE else np.zeros(len(worst))
        return worst, self.texts.named_bound(np.asarray(parts[0], np.float64), unlikeness)

    @functools.cached_property
    def _classes(self) -> tuple[Ints, Ints]:
        """The trained columns in order, and each image's position among them."""
        return np.unique(self.labels, return_inverse=True)

    @functools.cached_property
    def _rows(self) -> tuple[Floats, ...]:
        """`images` in float64, cast once."""
        return tuple(part.astype(np.float64) for part in self.images)

    def terms(self, parts: Sequence[AnyFloats]) -> Terms:
        """Each term of B images by its name, from their `ood_parts`."""
        names, index = self._classes
        plain = [np.asarray(part, np.float64) for part in parts]
        similar = [part @ rows.T for part, rows in zip(plain, self._rows, strict=False)]
        terms = {f"nearest_{k}": nearest(s, index, len(names)) for k, s in enumerate(similar)}
        whitened = plain[0] @ self.whiten.astype(np.float64)
        distances = squares_to(whitened, self.means.astype(np.float64))
        terms |= {"mahalanobis": similarity(distances), **self._text_terms(plain[0])}
        if len(self.local):
            terms["density"] = density(similar[DENSITY_PART], self.local.astype(np.float64))
        axes = zip(PRINCIPAL_PARTS, self.principal_mean, self.principal_axes, strict=False)
        return terms | {f"principal_{n}": along(plain[k], m, a) for n, (k, m, a) in enumerate(axes)}

    def _text_terms(self, features: Floats) -> Terms:
        return {} if self.texts is None else {"text": self.texts.log_ratios(features)}

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """The names of each group's terms, of those that this score has."""
        names = {f"nearest_{k}" for k in range(len(self.images))} | {"mahalanobis"}
        names |= {"text"} if self.texts is not None else set()
        names |= {"density"} if len(self.local) else set()
        names |= {f"principal_{k}" for k in range(len(self.principal_mean))}
        groups = [
            tuple(name for name in group if name in names)
            for group in (_KNOW_CLASSES, _OUTPUT, _KNOW_NONE)
        ]
        return [group for group in dict.fromkeys(groups) if group]

    @property
    def term_names(self) -> list[str]:
        """In the order of `center` and `spread`."""
        return list(dict.fromkeys(name for group in self.groups for name in group))

    def _group_scores(self, terms: Terms, columns: AnyInts) -> Floats:
        """(G, B): the sum of each group's standardized terms for its best class.

        Args:
            columns: the trained classes that count.
        """
        scales = zip(self.term_names, self.center, self.spread, strict=True)
        standard = {name: (terms[name] - c) / s for name, c, s in scales}
        kept = np.isin(self._classes[0], columns)
        scores = []
        for group in self.groups:
            joint = np.sum(np.broadcast_arrays(*(standard[name] for name in group)), axis=0)
            if group != _KNOW_NONE:
                joint = joint[:, kept]
            scores.append(joint.max(1, initial=-np.inf))
        return np.stack(scores)

    def _standardized(self, terms: Terms) -> OODScore:
        """A copy with scales and `own`, from the terms of unseen in-distribution images."""
        best = [terms[name].max(1) for name in self.term_names]
        center, spread = _scales([values[np.isfinite(values)] for values in best])
        scaled = dataclasses.replace(self, center=center, spread=spread)
        scores = scaled._group_scores(terms, scaled._classes[0])
        scores = scores[:, np.isfinite(scores).all(0)]
        center, spread = _scales(list(scores))
        whole = dataclasses.replace(scaled, group_center=center, group_spread=spread)
        own = ((scores - center[:, None]) / spread[:, None]).min(0)
        return dataclasses.replace(whole, own=own)


def _scales(values: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Mean and deviation of each; 0 and 1 where there is nothing."""
    center = np.array([v.mean() if v.size else 0.0 for v in values])
    spread = np.array([max(float(v.std()), 1e-6) if v.size else 1.0 for v in values])
    return center, spread


def _share(labels: Ints) -> Ints:
    """Indices of at most MOST_IMAGES images, as many of each class."""
    if len(labels) <= MOST_IMAGES:
        return np.arange(len(labels))
    names = np.unique(labels)
    each = max(MOST_IMAGES // len(names), 1)
    return np.sort(np.concatenate([np.flatnonzero(labels == name)[:each] for name in names]))
