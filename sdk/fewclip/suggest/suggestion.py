"""What to label next, and why, in words: early on typical images, later those in doubt. No torch.

With few labels a model's doubts say little, and images that stand for many others teach most; with
more, doubt is worth following. `FEW` is where one takes over from the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from fewclip.errors import OptionError
from fewclip.images import Image
from fewclip.preprocess import Inputs
from fewclip.suggest.choice import AnyFloats, Floats, Pick, centred, cover

FEW = 4  # labelled images a class below which doubt is not asked
MOST = 4096  # images compared with each other; of more, a sample
SIDE = 24  # pixels of the grey copies that picks are compared by
SAME_PIXELS = 0.975  # correlation, as `check` takes two images for one picture
DOUBT = 0.5  # 1 - margin from which a reason speaks of doubt


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """An image that is worth a label.

    Attributes:
        image: as it was given.
        score: what its label is worth beside the first one's, 0..1.
        reason: why, for people.
    """

    image: Image
    score: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON types; an image that is no path is null."""
        path = isinstance(self.image, str) or hasattr(self.image, "__fspath__")
        return {
            "image": str(self.image) if path else None,
            "score": self.score,
            "reason": self.reason,
        }


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Unlabelled images as a model sees them.

    Attributes:
        images: N of them.
        features: (N, L).
        looks: (N, SIDE, SIDE) of `grey_copies`.
        labelled: (n, L) of the images that the model learned from; n = 0 where it keeps none.
        proba: (N, M) probabilities.
        classes: the M labels.
    """

    images: Sequence[Image]
    features: AnyFloats
    looks: Floats
    labelled: AnyFloats
    proba: npt.NDArray[np.float64]
    classes: Sequence[str]


def suggest(candidates: Candidates, n: int = 20) -> list[Suggestion]:
    """At most `n` images, the most useful first.

    Raises:
        OptionError: `n` is not a whole number from 1 on.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"n must be a whole number from 1 on, not {n!r}")
    if not len(candidates.images):
        return []
    doubt = 1 - _margins(candidates.proba)
    early = len(candidates.labelled) < FEW * len(candidates.classes)
    kept = _sample(len(candidates.images))
    features, labelled = centred(candidates.features[kept], candidates.labelled)
    weights = np.ones(len(kept)) if early else doubt[kept]
    looks = candidates.looks[kept]

    def is_copy(index: int, earlier: Sequence[int]) -> bool:
        return any(_same(looks[index], looks[other]) for other in earlier)

    picks = cover(features, labelled, weights, int(n), is_copy)
    best = max((pick.gain for pick in picks), default=1.0) or 1.0
    found = []
    for pick in picks:
        at = int(kept[pick.at])
        reason = _reason(pick, candidates, at, None if early else float(doubt[at]))
        found.append(Suggestion(candidates.images[at], pick.gain / best, reason))
    return found


def grey_copies(inputs: Inputs) -> Floats:
    """(N, 3, size, size) preprocessed -> (N, SIDE, SIDE) grey, each of mean 0 and length 1.

    Picks are compared by them: a mirrored copy has other features than its picture.
    """
    copies = np.zeros((len(inputs), SIDE, SIDE), np.float32)
    for copy, image in zip(copies, inputs, strict=True):
        grey = PILImage.fromarray(image.mean(axis=0))
        copy[:] = grey.resize((SIDE, SIDE), PILImage.Resampling.BOX)
        copy -= copy.mean()
        copy /= max(float(np.linalg.norm(copy)), 1e-6)
    return copies


def _sample(count: int) -> npt.NDArray[np.int64]:
    """Indices of all images, or of MOST drawn at random, always the same ones."""
    if count <= MOST:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MOST, replace=False))


def _margins(proba: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, M) -> (N,): how far the best class is ahead of the second, 0..1."""
    if proba.shape[1] < 2:
        return np.zeros(len(proba))
    ordered = np.sort(proba, axis=1)
    margins: npt.NDArray[np.float64] = ordered[:, -1] - ordered[:, -2]
    return margins


def _same(one: Floats, two: Floats) -> bool:
    return max(float((one * two).sum()), float((one * two[:, ::-1]).sum())) > SAME_PIXELS


def _reason(pick: Pick, candidates: Candidates, at: int, doubt: float | None) -> str:
    others = pick.stands_for
    if others > 1:
        words = f"like {others} other images here, and like no labelled one"
    elif others == 1:
        words = "like one other image here, and like no labelled one"
    else:
        words = "unlike the labelled images" if pick.is_new else "near labelled or earlier images"
    if doubt is not None and doubt > DOUBT and len(candidates.classes) > 1:
        first, second = np.argsort(-candidates.proba[at], kind="stable")[:2]
        names = candidates.classes[first], candidates.classes[second]
        words += f"; the model wavers between {names[0]!r} and {names[1]!r}"
    return words
