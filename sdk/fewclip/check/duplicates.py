"""The same picture twice: re-encoded, resized, mirrored, cropped. Pixels only; no model, no torch.

Two steps. A bank of coarse views (16 x 16, some 50 boxes of each image) is compared with every
whole image and its mirror image by one matrix product, which leaves a few candidates for each. For
those the box is refined until one image, cropped to it, best fits the other. A correlation of
`SAME` or more then means the same picture: as measured, copies reach at least 0.975 (median 0.99),
the most similar different photos (hands of one person in front of one wall) 0.970.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from fewclip.check.photos import SIDE, Photo

SAME = 0.975
# Images of a few soft strokes fit each other under any crop, so only whole copies of them count.
SMOOTH, SAME_SMOOTH = 0.03, 0.998
# Smooth shading looks the same on any surface. Without it, copies of photos reach 0.97 and more,
# those of bare surfaces mostly 0.82, different surfaces 0.62; copies of fine weaves reach less, but
# fit better as a whole (0.998) than different surfaces do (0.989).
SAME_DETAIL, DETAIL_IF_EQUAL, EQUAL = 0.7, 0.4, 0.995
COARSE = 0.75  # correlation that a candidate must reach at 16 x 16
CANDIDATES = 3  # per image
_VIEW, _FINE = 16, 40  # sides of coarse and fine comparison
_SHARES = (1.0, 0.86, 0.74)  # widths and heights of the bank's boxes; refining goes down to 0.5
_CHUNK = 128  # images compared with all at once

Box = tuple[float, float, float, float]
Floats = npt.NDArray[np.float32]


class Pair(NamedTuple):
    """Photos `first < second` by index, how well they fit (0..1), and how they differ, as text."""

    first: int
    second: int
    fit: float
    how: str


def near_duplicates(photos: Sequence[Photo], *, crops: bool = True) -> list[Pair]:
    """All pairs of photos that show the same picture, best fit first.

    Args:
        crops: look for parts of images too; about ten times as fast without.
    """
    found: dict[tuple[int, int], Pair] = {}
    boxes, least = (_boxes(), COARSE) if crops else (_boxes()[:1], SAME - 0.05)
    for a, b, box, mirrored in _candidates([p.grey for p in photos], boxes, least):
        key = (min(a, b), max(a, b))
        if photos[a].content == photos[b].content:
            found[key] = Pair(*key, 1.0, "the same pixels")
            continue
        if key in found and found[key].fit > EQUAL:
            continue
        fit, box = _refined(photos[a].grey, photos[b].grey, box, mirrored)
        if not _same(photos[a], photos[b], fit, box, mirrored):
            continue
        if key not in found or fit > found[key].fit:
            found[key] = Pair(*key, fit, _how(photos[a], photos[b], box, mirrored))
    return sorted(found.values(), key=lambda pair: (-pair.fit, pair.first, pair.second))


def _same(one: Photo, two: Photo, fit: float, box: Box, mirrored: bool) -> bool:
    """Whether `two`, which fits what the box cuts out of `one`, shows the same picture."""
    smooth = min(one.sharpness, two.sharpness) < SMOOTH
    if fit < SAME or (smooth and (fit < SAME_SMOOTH or _is_cut(box))):
        return False
    least = SAME_DETAIL if fit < EQUAL else DETAIL_IF_EQUAL
    return _detail_fit(one.grey, two.grey, box, mirrored) >= least


def _how(one: Photo, two: Photo, box: Box, mirrored: bool) -> str:
    cut = _is_cut(box)
    words = [w for w, holds in (("mirrored", mirrored), ("cropped", cut)) if holds]
    if not cut and one.size != two.size:
        words.append("resized")
    return " and ".join(words) or "saved again"


def _is_cut(box: Box) -> bool:
    return (box[2] - box[0]) * (box[3] - box[1]) < 0.95 * SIDE * SIDE


def _boxes() -> list[Box]:
    boxes = []
    for w in _SHARES:
        for h in _SHARES:
            for x in (0.0,) if w == 1 else (0.0, 0.5, 1.0):
                for y in (0.0,) if h == 1 else (0.0, 0.5, 1.0):
                    left, top = x * (1 - w) * SIDE, y * (1 - h) * SIDE
                    boxes.append((left, top, left + w * SIDE, top + h * SIDE))
    return boxes


def _candidates(
    greys: Sequence[PILImage.Image], boxes: Sequence[Box], least: float
) -> Iterator[tuple[int, int, Box, bool]]:
    """(a, b, box, mirrored): b may be what `box` cuts out of a, mirrored or not."""
    if len(greys) < 2:
        return
    whole = np.stack([_view(grey, boxes[0], _VIEW) for grey in greys])  # (n, 256)
    flipped = whole.reshape(-1, _VIEW, _VIEW)[:, :, ::-1].reshape(whole.shape)
    for first in range(0, len(greys), _CHUNK):
        part = greys[first : first + _CHUNK]
        bank = np.stack([_view(g, box, _VIEW) for g in part for box in boxes])  # (c * v, 256)
        for mirrored, targets in ((False, whole), (True, flipped)):
            fits = (bank @ targets.T).reshape(len(part), len(boxes), -1)  # (c, v, n)
            best, where = fits.max(1), fits.argmax(1)  # (c, n)
            for i in range(len(part)):
                best[i, first + i] = -1
                likely = np.argsort(-best[i])[:CANDIDATES]
                for b in likely[best[i, likely] >= least]:
                    yield first + i, int(b), boxes[where[i, b]], mirrored


def _view(grey: PILImage.Image, box: Box, side: int) -> Floats:
    """What the box cuts out, (side * side,), mean 0 and length 1."""
    cut = grey.resize((side, side), PILImage.Resampling.BILINEAR, box)
    values = np.asarray(cut, np.float32).ravel() / 255
    values = values - values.mean()
    # One blank wall fits any other, so noise of about a grey level must not become a pattern.
    unit: Floats = values / max(float(np.linalg.norm(values)), 0.008 * side)
    return unit


def _refined(
    one: PILImage.Image, two: PILImage.Image, box: Box, mirrored: bool
) -> tuple[float, Box]:
    """Move the box's edges while what it cuts out of `one` fits `two` better: (fit, box)."""
    target = _whole(two, mirrored)
    best = float(_view(one, box, _FINE) @ target)
    for step in (6.0, 3.0, 1.5, 0.75):
        for _ in range(3):
            before = best
            for edge in range(4):
                for change in (step, -step):
                    moved = list(box)
                    moved[edge] = min(SIDE, max(0.0, moved[edge] + change))
                    if min(moved[2] - moved[0], moved[3] - moved[1]) < SIDE / 2:
                        continue
                    trial: Box = (moved[0], moved[1], moved[2], moved[3])
                    fit = float(_view(one, trial, _FINE) @ target)
                    if fit > best + 1e-5:
                        best, box = fit, trial
            if best == before:
                break
        if best < SAME - 0.15:  # so far off that smaller steps will not help
            break
    return best, box


def _whole(grey: PILImage.Image, mirrored: bool) -> Floats:
    """The view of a whole image, or of its mirror image."""
    turned = grey.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT) if mirrored else grey
    return _view(turned, (0, 0, SIDE, SIDE), _FINE)


def _detail_fit(one: PILImage.Image, two: PILImage.Image, box: Box, mirrored: bool) -> float:
    """How well `two` fits what the box cuts out of `one`, -1..1, without their shading."""
    views = np.stack([_view(one, box, _FINE), _whole(two, mirrored)], axis=1)
    y, x = np.mgrid[-1 : 1 : _FINE * 1j, -1 : 1 : _FINE * 1j]
    shading = np.stack([x**i * y**j for i in range(3) for j in range(3 - i)]).reshape(6, -1).T
    detail = views - shading @ np.linalg.lstsq(shading, views, rcond=None)[0]
    a, b = detail.T / np.maximum(np.linalg.norm(detail, axis=0), 1e-6)[:, None]
    return float(a @ b)
