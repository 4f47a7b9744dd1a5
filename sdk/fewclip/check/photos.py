"""One image by itself: its size, light, sharpness, and a small grey copy. No model, no torch.

What is too dark, blurred, tiny or oddly shaped depends on the rest of the data set: night photos
are dark and fabrics are smooth for a reason, but a single such image is likely a mistake.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image as PILImage

from fewclip.check.issue import Issue
from fewclip.images import Image

SIDE = 96  # of the grey copy, pixels
DARK = 0.12  # mean luminance below which an image may be too dark, 0..1
BRIGHT = 0.95
FLAT = 0.012  # spread of the luminance below which there is nothing to see
TINY = 20  # shorter side below which an image may be too small, pixels
ODD = 3.0  # long side over short side above which a shape may be odd


@dataclasses.dataclass(frozen=True)
class Photo:
    """One readable image of a data set and its measurements.

    Attributes:
        image: what `images.load_image` reads.
        source: where it is, for people; fixes name it by this.
        label, split: as the data set has it.
        size: (width, height), pixels.
        grey: SIDE x SIDE, mode L, squashed.
        brightness, spread: mean and standard deviation of luminance, 0..1.
        sharpness: standard deviation of the Laplacian over `spread`; low is blurred.
        content: sha256 of its decoded pixels.
    """

    image: Image
    source: str
    label: str
    split: str
    size: tuple[int, int]
    grey: PILImage.Image
    brightness: float
    spread: float
    sharpness: float
    content: str


def measure(
    image: Image, pixels: PILImage.Image, *, source: str, label: str, split: str, content: str
) -> Photo:
    """Measure a decoded RGB image."""
    grey = pixels.convert("L")
    large = min(grey.size) >= SIDE
    small = grey.resize(
        (SIDE, SIDE), PILImage.Resampling.BOX if large else PILImage.Resampling.BICUBIC
    )
    values = np.asarray(small, np.float32) / np.float32(255)
    spread = float(values.std())
    edges = np.abs(
        4 * values[1:-1, 1:-1]
        - values[:-2, 1:-1]
        - values[2:, 1:-1]
        - values[1:-1, :-2]
        - values[1:-1, 2:]
    )
    return Photo(
        image,
        source,
        label,
        split,
        pixels.size,
        small,
        float(values.mean()),
        spread,
        float(edges.mean()) / max(spread, 1e-3),
        content,
    )


def odd_photos(photos: Sequence[Photo]) -> Iterator[Issue]:
    """Images too dark, bright, empty, blurred, tiny or oddly shaped compared with the others."""
    if not photos:
        return
    light = np.array([p.brightness for p in photos])
    sharp = np.log(np.array([max(p.sharpness, 1e-4) for p in photos]))
    short = np.array([min(p.size) for p in photos])
    shape = np.array([max(p.size) / min(p.size) for p in photos])
    centre, usual = float(np.median(sharp)), float(np.median(np.abs(sharp - np.median(sharp))))
    blurred = centre - max(6 * usual, 1.2)
    for i, photo in enumerate(photos):
        w, h = photo.size
        if photo.spread < FLAT:
            yield _look(photo, "empty", 0.9, "almost one colour: nothing to see")
        elif light[i] < min(DARK, np.median(light) / 2):
            yield _look(photo, "dark", 0.7, f"very dark: mean brightness {light[i]:.0%}")
        elif light[i] > BRIGHT and np.median(light) < 0.85:
            yield _look(photo, "bright", 0.6, f"overexposed: mean brightness {light[i]:.0%}")
        elif sharp[i] < blurred:
            times = np.exp(centre - sharp[i])
            yield _look(photo, "blurred", 0.5, f"{times:.1f} times less detail than usual here")
        if short[i] < min(TINY, np.median(short) / 2):
            yield _look(photo, "tiny", 0.6, f"only {w} x {h} pixels")
        elif shape[i] > max(ODD, 2 * np.median(shape)):
            reason = f"{w} x {h} pixels: much of it is cropped away or squashed"
            yield _look(photo, "shape", 0.4, reason)


def _look(photo: Photo, kind: str, score: float, reason: str) -> Issue:
    return Issue(
        kind=kind,
        source=photo.source,
        label=photo.label,
        split=photo.split,
        score=score,
        reason=reason,
        advice="look at it; leave it out or replace it unless such images will be classified",
        image=photo.image,
    )
