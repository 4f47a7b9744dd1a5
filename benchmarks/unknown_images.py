"""Own images and out-of-distribution images of `benchmarks.unknown`: photos, noise, flat, text."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fewclip.samples import digits, surfaces

Images = Sequence[Path | Image.Image]

OWN = ("tiny-8", "tiny-20", "cifar-5", "signs", "digits", "surfaces")
OOD = (*OWN, "noise", "flat", "text")
ADDED = "added"  # classes of Tiny ImageNet that are in none of the sets, to be added by name
_EVERYDAY = ("tiny-8", "tiny-20", "cifar-5")
_PACKS = {"cifar-5": "cifar10-fewshot", "signs": "sign-language-digits"}
_TINY = "tiny-imagenet-fewshot"
_DRAWN_TRAIN, _DRAWN_TEST = range(64), range(64, 104)
_PAGE = (
    "the of and to in is that for it as was with be by on not he his but at are this have from had "
    "they which one you were her all she there would their we him been has when who will more out "
    "said what up about into than them can only other new some could time these two may then first"
)


def is_near(own: str, ood: str) -> bool:
    """Both are photos of everyday things, some of the same: CIFAR-10 has dogs, too."""
    return own in _EVERYDAY and ood in _EVERYDAY


def is_design(own: str, ood: str) -> bool:
    """Whether the score was chosen on this pair's training photos: true of half of them."""
    return (OWN.index(own) + OOD.index(ood)) % 2 == 0


def read_own(data: Path, folder: Path, name: str, part: str) -> dict[str, Images]:
    """Class -> images of one of `OWN`; part is "train" or "test"."""
    if name in ("digits", "surfaces"):
        drawn = digits if name == "digits" else surfaces
        indices = _DRAWN_TRAIN if part == "train" else _DRAWN_TEST
        return {label: [drawn.draw(label, i) for i in indices] for label in drawn.PHRASES}
    pack = _PACKS.get(name, _TINY)
    if not (folder / pack).is_dir():
        with tarfile.open(data / f"{pack}.tar") as tar:
            tar.extractall(folder, filter="data")
    root = folder / pack / part
    labels = sorted(path.name for path in root.iterdir())
    chosen = {"tiny-8": labels[3::25], "tiny-20": labels[::10], "cifar-5": labels[:5]}
    chosen[ADDED] = labels[5::20]
    return {label: sorted((root / label).iterdir()) for label in chosen.get(name, labels)}


def phrases(name: str, labels: Sequence[str]) -> dict[str, str]:
    """What one would say for each class."""
    drawn = {"digits": digits.PHRASES, "surfaces": surfaces.PHRASES}
    return dict(drawn.get(name) or {label: label.replace("_", " ") for label in labels})


def generate(name: str, count: int, seed: int = 1) -> list[Image.Image]:
    """ "noise", "flat" or "text"; seed 0 was used while the score was designed."""
    rng = np.random.default_rng([("noise", "flat", "text").index(name), seed])
    draw = {"noise": _noise, "flat": _flat, "text": _text}[name]
    return [draw(rng) for _ in range(count)]


def _noise(rng: np.random.Generator) -> Image.Image:
    """White, Gaussian, grey or smooth."""
    side, kind = int(rng.choice([32, 64, 128])), int(rng.integers(0, 4))
    shape = (side, side, 3)
    if kind == 0:
        pixels = rng.integers(0, 256, shape).astype(float)
    elif kind == 1:
        pixels = rng.normal(rng.uniform(60, 200), rng.uniform(15, 60), shape)
    elif kind == 2:
        pixels = np.repeat(rng.integers(0, 256, (side, side, 1)), 3, 2).astype(float)
    else:
        cells = int(rng.choice([4, 8, 16]))
        small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        return small.resize((side, side), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _flat(rng: np.random.Generator) -> Image.Image:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return Image.new("RGB", (64, 64), (red, green, blue))


def _text(rng: np.random.Generator) -> Image.Image:
    """A scan of a page: dark on light, one in five light on dark."""
    width, height = int(rng.integers(160, 320)), int(rng.integers(120, 320))
    dark = bool(rng.random() < 0.2)
    paper, ink = (20, 240) if dark else (int(rng.integers(225, 256)), int(rng.integers(0, 60)))
    page = Image.new("RGB", (width, height), (paper,) * 3)
    draw, size = ImageDraw.Draw(page), int(rng.integers(10, 30))
    font, y, words = ImageFont.load_default(size=size), int(rng.integers(2, 12)), _PAGE.split()
    while y < height:
        line = " ".join(rng.choice(words, 12))
        draw.text((int(rng.integers(4, 9)), y), line, font=font, fill=(ink,) * 3)
        y += int(size * 1.3)
    return page
