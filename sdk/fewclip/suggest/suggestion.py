"""What to label next, and why, in words. No torch.

The model's own uncertainty is not used: with 2 to 16 labels a class it did not improve the choice.
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
from fewclip.suggest.choice import AnyFloats, Floats, Pick, centred, design

MOST = 4096  # images compared with each other; of more, a random sample
SIDE = 24  # pixels; side of the grey copies that picks are compared by
SAME_PIXELS = 0.975  # correlation from which two images are the same picture, as in `check`


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """An image that is worth a label.

    Attributes:
        image: as it was given.
        score: what its label is worth relative to the first one's, 0..1.
        reason: why, for people.
    """

    image: Image
    score: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON types; an image that is not a path is null."""
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
    """

    images: Sequence[Image]
    features: AnyFloats
    looks: Floats
    labelled: AnyFloats


def suggest(candidates: Candidates, n: int = 20) -> list[Suggestion]:
    """At most `n` images, the most useful first.

    Raises:
        OptionError: `n` is not a whole number >= 1.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"n must be a whole number of at least 1, not {n!r}")
    if not len(candidates.images):
        return []
    kept = _sample(len(candidates.images))
    features, labelled = centred(candidates.features[kept], candidates.labelled)
    looks = candidates.looks[kept]

    def is_copy(index: int, earlier: Sequence[int]) -> bool:
        return any(_same(looks[index], looks[other]) for other in earlier)

    picks = design(features, labelled, int(n), is_copy)
    most = picks[0].gain if picks else 0.0  # 0 for a single image, which is like no other
    gains = np.minimum.accumulate([pick.gain / most if most else 1.0 for pick in picks])
    return [
        Suggestion(candidates.images[int(kept[pick.at])], float(gain), _reason(pick))
        for pick, gain in zip(picks, gains, strict=True)
    ]


def grey_copies(inputs: Inputs) -> Floats:
    """(N, 3, size, size) preprocessed -> (N, SIDE, SIDE) grey, each of mean 0 and length 1.

    Picks are compared by these, since a mirrored copy has features unlike its picture's.
    """
    copies = np.zeros((len(inputs), SIDE, SIDE), np.float32)
    for copy, image in zip(copies, inputs, strict=True):
        grey = PILImage.fromarray(image.mean(axis=0))
        copy[:] = np.asarray(grey.resize((SIDE, SIDE), PILImage.Resampling.BOX))
        copy -= copy.mean()
        copy /= max(float(np.linalg.norm(copy)), 1e-6)
    return copies


def _sample(count: int) -> npt.NDArray[np.int64]:
    """Indices of all images, or of MOST drawn at random, always the same ones."""
    if count <= MOST:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MOST, replace=False))


def _same(one: Floats, two: Floats) -> bool:
    return max(float((one * two).sum()), float((one * two[:, ::-1]).sum())) > SAME_PIXELS


def _reason(pick: Pick) -> str:
    if pick.stands_for > 1:
        return f"like {pick.stands_for} other images here, and like no labelled one"
    if pick.stands_for == 1:
        return "like one other image here, and like no labelled one"
    return "unlike the labelled images" if pick.is_new else "near labelled or earlier images"
