"""Small pictures for data tests, each different from every other. No test here."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from fewclip.data import Item


def picture(name: str, size: tuple[int, int] = (12, 9)) -> Image.Image:
    """Noise determined by the name: (width, height) RGB."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


def fill(folder: Path, n: int, *, prefix: str = "") -> list[Path]:
    """n different PNGs; the folder's name, `prefix` and number determine what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{prefix}{i}.png" for i in range(n)]
    for path in paths:
        picture(f"{folder.name}/{path.name}").save(path)
    return paths


def cats_dogs_sea_lions(folder: Path) -> Path:
    """Twelve cats, nine dogs, four sea lions."""
    for label, n in {"cat": 12, "dog": 9, "sea_lion": 4}.items():
        fill(folder / label, n)
    return folder


def contents(items: Iterable[Item]) -> list[tuple[str, int]]:
    """What items show and their classes, in order, wherever the files are."""
    return [(item.content, item.label) for item in items]
