"""Folder, CSV, dict or list -> verified, seeded few-shot split. No training, no torch.

`discovery.py` finds the images, `pool.py` verifies them, this file draws the split. It depends on
the pictures, the class names and the seed alone: not on the order of a file system, not on file
names, and for one class not on any other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fewclip.data.csv_file import csv_rows, image_beside, is_csv
from fewclip.data.discovery import Data
from fewclip.data.found import Skipped
from fewclip.data.paths import existing, visible
from fewclip.data.pixel_cache import PixelStore
from fewclip.data.pool import Item, Pool, content_hash, read, read_labelled
from fewclip.errors import DataError, OptionError
from fewclip.images import image_suffixes, readable

__all__ = [
    "Data",
    "Item",
    "PixelStore",
    "Pool",
    "Skipped",
    "Split",
    "content_hash",
    "few_shot",
    "list_images",
    "read",
    "read_labelled",
]

Val = str | float | os.PathLike[str]

_AT_LEAST = 8  # images of a class before "auto" takes one in five of them for validation
_LISTED = 100  # skipped things that a card lists; it is served over HTTP


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Images to train on and images to validate on; no picture is in both.

    Attributes:
        train, val: images, class by class.
        unused: images in neither, left over by `shots` and `val`.
        shots, seed: what the sample was drawn with.
    """

    train: list[Item]
    val: list[Item]
    unused: int
    classes: tuple[str, ...]
    phrases: dict[str, str]
    skipped: list[Skipped]
    notes: list[str]
    shots: int | Literal["all"]
    seed: int

    def summary(self) -> dict[str, Any]:
        """The data as a card describes it: plain JSON types."""
        return {
            "shots": self.shots,
            "seed": self.seed,
            "train": self.counts(self.train),
            "val": self.counts(self.val),
            "unused": self.unused,
            "skipped_total": len(self.skipped),
            "skipped": [dataclasses.asdict(each) for each in self.skipped[:_LISTED]],
            "notes": list(self.notes),
            "content": content_hash([*self.train, *self.val]),
        }

    def describe(self) -> str:
        """The data in a few lines for people."""
        each = self.counts(self.train).values()
        span = f"{min(each)}" if len(set(each)) == 1 else f"{min(each)} to {max(each)}"
        lines = [
            f"{len(self.classes)} classes: {len(self.train)} images to learn from ({span} per "
            f"class), {len(self.val)} to validate with, {self.unused} unused"
        ]
        if self.skipped:
            lines.append(f"{len(self.skipped)} skipped:")
            lines += [f"  {each.source}: {each.reason}" for each in self.skipped[:10]]
            if len(self.skipped) > 10:
                lines.append(f"  ... and {len(self.skipped) - 10} more")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def counts(self, items: Sequence[Item]) -> dict[str, int]:
        """Images per class, including classes with none."""
        counts = Counter(item.label for item in items)
        return {label: counts[i] for i, label in enumerate(self.classes)}


def few_shot(
    pool: Pool, *, shots: int | Literal["all"] = 16, val: Val = "auto", seed: int = 0
) -> Split:
    """Draw `shots` training images of every class, and validation images.

    Args:
        shots: images per class, or "all". A larger sample with the same seed contains the smaller.
        val: "auto" takes the data set's own val/ if it has one; else what `shots` left over;
            else one in five of a class with 8 or more images; else none. Or a fraction below 1 of
            each class; or a folder or CSV of labelled images; or 0.
        seed: >= 0.

    Raises:
        OptionError: `shots`, `val` or `seed` is out of range.
        DataError: `val` is not a data set, or holds all images of a class.
    """
    limit = _limit(shots)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise OptionError(f"seed must be a whole number >= 0, got {seed!r}")
    given, skipped = _given_val(pool, val)
    measured = {item.content for item in given or ()}
    per_class: dict[int, list[Item]] = defaultdict(list)
    for item in pool.train:
        if item.content in measured:
            skipped.append(Skipped(item.source, "also a validation image; left out of train"))
        else:
            per_class[item.label].append(item)

    train: list[Item] = []
    held: list[Item] = []
    for label, name in enumerate(pool.classes):
        images = _shuffled(per_class[label], name, seed)
        if not images:
            raise DataError(
                f"every image of class {name!r} is a validation image too; add others to learn from"
            )
        n_held = 0 if given is not None else _held(len(images), limit, val)
        train += images[: len(images) - n_held][:limit]
        held += images[len(images) - n_held :]
    split = Split(
        train=train,
        val=held if given is None else given,
        unused=sum(map(len, per_class.values())) - len(train) - len(held),
        classes=pool.classes,
        phrases=pool.phrases,
        skipped=pool.skipped + skipped,
        notes=list(pool.notes),
        shots=shots,
        seed=seed,
    )
    split.notes.extend(_remarks(split, limit, ignored=given is None and bool(pool.val)))
    return split


def list_images(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Image paths in order: a file is itself, a folder its images at any depth, a CSV its rows.

    Raises:
        DataError: a path does not exist, or a folder or CSV holds no image.
    """
    found = []
    for path in map(existing, paths):
        if path.is_dir():
            images = _images_below(path)
        elif is_csv(path):
            rows = csv_rows(path, ("image_path",))
            images = [image_beside(path, cells["image_path"]) for _, cells in rows]
        else:
            images = [path]
        if not images:
            raise DataError(f"{readable(path)} holds no images; name files, a folder or a CSV")
        found += [str(image) for image in images]
    return found


def _images_below(folder: Path) -> list[Path]:
    images = []
    for entry in visible(folder):
        if os.path.isdir(entry) and not entry.is_symlink():  # a link may lead back up
            images += _images_below(entry)
        elif entry.suffix.lower() in image_suffixes():
            images.append(entry)
    return images


def _limit(shots: object) -> int | None:
    if shots == "all":
        return None
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise OptionError(f"shots must be a whole number of at least 1, or 'all'; got {shots!r}")
    return shots


def _given_val(pool: Pool, val: object) -> tuple[list[Item] | None, list[Skipped]]:
    """Validation images that do not come from `pool.train`, if any."""
    if val == "auto":
        return pool.val or None, []  # a val/ without usable images counts as none
    if isinstance(val, (str, os.PathLike)):
        items, skipped = read_labelled(val, pool.classes, split="val")
        return items, skipped
    if isinstance(val, bool) or not isinstance(val, (int, float)) or not 0 <= val < 1:
        raise OptionError(
            f"val must be 'auto', 0, a fraction below 1, or a folder of labelled images; "
            f"got {val!r}"
        )
    return None, []


def _held(n: int, limit: int | None, val: Val) -> int:
    """How many of a class's n images go to validation; at least one is left for training."""
    if isinstance(val, (int, float)):
        return min(round(val * n), n - 1)
    if limit is not None and n > limit:
        return n - limit
    return n // 5 if n >= _AT_LEAST else 0


def _shuffled(items: Sequence[Item], label: str, seed: int) -> list[Item]:
    ordered = sorted(items, key=lambda item: item.content)
    own = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big")
    return [ordered[i] for i in np.random.default_rng([seed, own]).permutation(len(ordered))]


def _remarks(split: Split, limit: int | None, *, ignored: bool) -> list[str]:
    notes = []
    few = [f"{name} ({n})" for name, n in split.counts(split.train).items() if n < (limit or 0)]
    if few:
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        notes.append(f"fewer than {limit} images to learn from: {', '.join(few[:10])}{more}")
    if ignored:
        notes.append("the data set's own val/ is not used; val='auto' would")
    without = sum(n == 0 for n in split.counts(split.val).values())
    if not split.val:
        notes.append(
            "no validation images: only heads such as gda and what method 'auto' chooses are "
            "calibrated, out of fold; of other methods scores and 'unknown' stay uncalibrated"
        )
    elif without:
        notes.append(f"{without} of {len(split.classes)} classes have no validation images")
    return notes
