"""Writes the sheet of handwritten digits that the demo ships, from scikit-learn's `load_digits`.

    python -m benchmarks.bundled.make_digits

Run once; the sheet is committed. It is not needed to use fewclip.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from fewclip.samples.digits import GREY_STEP, SHEET, TILE


def make_sheet() -> Image.Image:
    """Row d holds all images of digit d, in scikit-learn's order; the rest is black."""
    digits = load_digits()
    rows = [digits.images[digits.target == d] for d in range(10)]
    sheet = np.zeros((10 * TILE, max(map(len, rows)) * TILE), dtype=np.uint8)
    for d, row in enumerate(rows):
        for i, image in enumerate(row):
            tile = np.s_[d * TILE : (d + 1) * TILE, i * TILE : (i + 1) * TILE]
            sheet[tile] = image * GREY_STEP
    return Image.fromarray(sheet)


if __name__ == "__main__":
    make_sheet().save(SHEET, optimize=True)
    print(f"{SHEET}: {SHEET.stat().st_size} bytes")
