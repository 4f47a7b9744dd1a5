"""The answer to "why": a heat map over the photo. It computes no heat itself; no torch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from fewclip.contract import Preprocess

Heat = npt.NDArray[np.float32]

# From cold to hot: dark violet, magenta, orange, light yellow. Brightness rises throughout, so
# it can be read without distinguishing colours.
_RAMP = np.array([(30, 12, 70), (150, 35, 105), (240, 110, 30), (252, 250, 160)], np.float32)
_COVER = 0.65  # opacity of the heat map where it is hottest


@dataclasses.dataclass(frozen=True)
class Question:
    """What is explained: the log-probability of a class, minus that of another one.

    Attributes:
        label: index of the class.
        contrast: index of the class to contrast it with; None for none.
    """

    label: int
    contrast: int | None = None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Which parts of a photo support a class.

    Attributes:
        heatmap: (H, W) float32, 0..1, over the upright photo: 1 where support for `label` is
            strongest, 0 where it is absent or negative, and outside of what the model sees.
        label: the class that is explained.
        score: its calibrated probability, 0..1.
        contrast: the class it was contrasted with; None for none.
        method: "attention" or "occlusion".
        image: the upright RGB photo, (W, H).
    """

    heatmap: Heat
    label: str
    score: float
    contrast: str | None
    method: str
    image: PILImage.Image = dataclasses.field(repr=False)

    def overlay(self) -> PILImage.Image:
        """The photo in grey under the heat map in colour, RGB, at the photo's size."""
        grey = np.asarray(self.image.convert("L"), np.float32)[..., None]
        anchors = np.linspace(0, 1, len(_RAMP))
        colour = np.stack([np.interp(self.heatmap, anchors, c) for c in _RAMP.T], -1)
        cover = _COVER * np.sqrt(self.heatmap)[..., None]
        blended = grey * (1 - cover) + colour * cover
        return PILImage.fromarray(blended.round().astype(np.uint8))

    @property
    def peak(self) -> tuple[int, int]:
        """(x, y) of the hottest pixel."""
        y, x = np.unravel_index(int(self.heatmap.argmax()), self.heatmap.shape)
        return int(x), int(y)

    def to_dict(self) -> dict[str, Any]:
        """JSON types, without the image and the heat map."""
        return {
            "label": self.label,
            "score": self.score,
            "contrast": self.contrast,
            "method": self.method,
            "peak": list(self.peak),
        }


def over_photo(heat: Heat, photo: PILImage.Image, spec: Preprocess) -> Heat:
    """Heat of a grid of cells over the model's input -> (H, W), 0..1, over the photo.

    Args:
        heat: (rows, columns), of any scale; what is below 0 counts as 0.
        spec: how the photo became the model's input.
    """
    box = _seen(photo, spec)
    size = (box[2] - box[0], box[3] - box[1])
    cells = PILImage.fromarray(np.clip(heat, 0, None).astype(np.float32))
    smooth = np.asarray(cells.resize(size, PILImage.Resampling.BICUBIC))
    whole = np.zeros((photo.height, photo.width), np.float32)
    whole[box[1] : box[3], box[0] : box[2]] = np.clip(smooth, 0, None)
    top = float(whole.max())
    return whole / top if top > 0 else whole


def _seen(photo: PILImage.Image, spec: Preprocess) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part of a photo that the model sees, in pixels."""
    if spec.resize_mode == "squash":
        return 0, 0, photo.width, photo.height
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return left, top, left + side, top + side
