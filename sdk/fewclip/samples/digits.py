"""Real handwritten digits for the demo, cut from the sheet that ships with the package.

Origin and licence of the images are in README.md beside this file.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

SHEET = Path(__file__).with_name("digits.png")
TILE = 8  # side of a digit as it was scanned, pixels
GREY_STEP = 15  # the scans have 17 levels, 0 to 16; 16 * 15 = 240 is the sheet's brightest
SIZE = 64  # side of a digit as the demo writes it, pixels
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHRASES = {name: f"the handwritten digit {name}" for name in NAMES}


@functools.cache
def scans(label: str) -> npt.NDArray[np.uint8]:
    """(n, 8, 8) grey levels 0..240 of all images of `label`; 174 to 183 of each."""
    with PILImage.open(SHEET) as sheet:
        pixels = np.asarray(sheet, dtype=np.uint8)
    row = NAMES.index(label) * TILE
    strip = pixels[row : row + TILE]  # (8, n * 8)
    tiles = strip.reshape(TILE, -1, TILE).swapaxes(0, 1)
    return tiles[tiles.any(axis=(1, 2))]  # rows end in black tiles; no digit is all black


def draw(label: str, index: int) -> PILImage.Image:
    """Digit `index` of `label`, enlarged to SIZE x SIZE, RGB: light strokes on black."""
    found = scans(label)
    # Neighbours on the sheet are by the same hand; shuffled, any run of indices has all writers.
    order = np.random.default_rng(NAMES.index(label)).permutation(len(found))
    scan = PILImage.fromarray(found[order[index]])
    return scan.resize((SIZE, SIZE), PILImage.Resampling.BICUBIC).convert("RGB")
