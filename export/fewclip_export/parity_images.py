"""The parity samples of an export, as files. It compares nothing.

The best samples are the user's own images that were kept out of training. If there are too few,
augmented views of them are added; images of odd sizes and modes always are.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from fewclip.artifact import sha256_file
from fewclip.contract import Card
from fewclip.preprocess import Image, load_image

AT_LEAST = 200
AT_MOST = 600  # more would prove nothing more, and each is computed three times
GENERATED_SIZES = (48, 256)  # sides of generated images, pixels

VALIDATION_FILES = "validation_files"  # in card.data: [{"path", "label", "sha256"}]

Picture = PILImage.Image


@dataclasses.dataclass(frozen=True)
class ParitySamples:
    """The images on which an export is compared with the trained model.

    Attributes:
        paths: image files.
        labels: the class of each, None if unknown.
        own: how many of the first ones are the user's own images, unchanged.
        origin: where they come from, for people.
    """

    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    own: int
    origin: str


def gather(
    given: Sequence[tuple[Image, str | None]] | None,
    validation: Sequence[tuple[Image, str]],
    card: Card,
    folder: Path,
    seed: int,
) -> ParitySamples:
    """Write the images to `folder`, except those that are files already.

    Args:
        given: images and labels from the caller; None to take the validation images of this
            process, or those named in the card whose files are still there, unchanged.
    """
    rng = np.random.default_rng(seed)
    pairs: Sequence[tuple[Image, str | None]] = ()
    if given is not None:
        pairs, origin = given, "images given"
    elif validation:
        pairs, origin = validation, "validation images"
    else:
        pairs, origin = remembered(card), "validation images"
    if len(pairs) > AT_MOST:
        chosen = np.sort(rng.choice(len(pairs), AT_MOST, replace=False))
        pairs = [pairs[int(i)] for i in chosen]
    own = [(_as_file(image, folder / f"own-{i}"), label) for i, (image, label) in enumerate(pairs)]
    described = f"{len(own)} {origin}"
    base = own
    if not own:
        base = [(_write(_generate(rng), folder / f"made-{i}.png"), None) for i in range(AT_LEAST)]
        described = (
            f"{AT_LEAST} generated pictures, because none of your images were available "
            "(give some with --images DATA, in Python images=)"
        )
    odd: list[tuple[str, str | None]] = [(path, None) for path in _odd(base[0][0], folder)]
    missing = max(0, AT_LEAST - len(base) - len(odd))
    views = [
        (
            _write(_view(base[i % len(base)][0], rng), folder / f"view-{i}.png"),
            base[i % len(base)][1],
        )
        for i in range(missing)
    ]
    if views:
        described += f", {len(views)} augmented views of them"
    paths, labels = zip(*base, *views, *odd, strict=True)
    known = set(card.classes)
    return ParitySamples(
        paths,
        tuple(label if label in known else None for label in labels),
        len(own),
        f"{described}, {len(odd)} odd sizes and modes",
    )


def remembered(card: Card) -> list[tuple[Image, str | None]]:
    """Validation images named in the card whose files are still there, unchanged."""
    source = card.data.get("source")
    entries: Sequence[Mapping[str, Any]] = card.data.get(VALIDATION_FILES, ())
    root = Path(source) if source else Path()
    if root.is_file():
        root = root.parent
    found: list[tuple[Image, str | None]] = []
    for entry in entries:
        path = root / entry["path"]
        try:
            # Regular files only: an untrusted card may name a device, which can be read forever.
            if path.is_file() and sha256_file(path) == entry["sha256"]:
                found.append((str(path), entry["label"]))
        except (OSError, ValueError):  # ValueError: a NUL in the name
            continue
    return found


def _as_file(image: Image, stem: Path) -> str:
    """The path of an image: its own, or that of a new file with its content."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    if isinstance(image, bytes):
        stem.write_bytes(image)
        return str(stem)
    return _write(load_image(image), stem.with_suffix(".png"))


def _write(picture: Picture, path: Path, **options: Any) -> str:
    picture.save(path, compress_level=1, **options)  # a PNG is read twice and thrown away
    return str(path)


def _view(path: str, rng: np.random.Generator) -> Picture:
    """A random crop of 70 to 100 % of either side, flipped half the time."""
    picture = load_image(path)
    width, height = (max(1, round(side * rng.uniform(0.7, 1))) for side in picture.size)
    left = int(rng.integers(picture.width - width + 1))
    top = int(rng.integers(picture.height - height + 1))
    view = picture.crop((left, top, left + width, top + height))
    return view.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else view


def _generate(rng: np.random.Generator) -> Picture:
    """Soft colours with a few shapes: nothing in particular, but no two alike."""
    low, high = GENERATED_SIZES
    size = (int(rng.integers(low, high)), int(rng.integers(low, high)))
    cells = rng.integers(0, 256, (*rng.integers(2, 9, 2), 3), dtype=np.uint8)
    picture = PILImage.fromarray(cells).resize(size, PILImage.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(0, 5))):
        x, y = (np.sort(rng.integers(0, side, 2)).tolist() for side in size)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x[0], y[0], x[1], y[1]), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return picture


def _odd(path: str, folder: Path) -> list[str]:
    """One image in sizes, modes and formats that a user's files may have."""
    picture = load_image(path)
    picture.thumbnail((256, 256))
    clear = picture.convert("RGBA")
    clear.putalpha(picture.convert("L"))
    turned = PILImage.Exif()
    turned[0x0112] = 6
    deep = PILImage.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    palette = picture.convert("P")
    palette.info["transparency"] = 0
    frames = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    kinds: dict[str, Callable[[Path], str]] = {
        "grey.png": lambda p: _write(picture.convert("L"), p),
        "bitmap.png": lambda p: _write(picture.convert("1"), p),
        "deep.png": lambda p: _write(deep, p),
        "palette.png": lambda p: _write(palette, p),
        "clear.png": lambda p: _write(clear, p),
        "print.jpg": lambda p: _write(picture.convert("CMYK"), p),
        "turned.jpg": lambda p: _write(picture, p, exif=turned),
        "coarse.jpg": lambda p: _write(picture, p, quality=20, progressive=True),
        "moving.gif": lambda p: _write(picture, p, **frames),
        "point.png": lambda p: _write(picture.resize((1, 1)), p),
        "tall.png": lambda p: _write(picture.resize((7, 301)), p),
        "wide.png": lambda p: _write(picture.resize((333, 11)), p),
    }
    return [write(folder / name) for name, write in kinds.items()]
