"""Opens a data set for a benchmark: a published one, a photo pack, or a folder of your own."""

from __future__ import annotations

import atexit
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fewclip.bench.layouts import DESCRIBED, LAYOUTS
from fewclip.bench.photos import Dataset, Photo, permutation
from fewclip.bench.readers import read_published, recognised
from fewclip.data import Pool, read
from fewclip.errors import DataError
from fewclip.images import readable

HELD_OUT = 0.4  # of each class, for a folder without test images of its own


def load(data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Dataset:
    """Read a data set.

    Args:
        data: a name from the table (below `root`), the folder of one of the fifteen, a folder or
            CSV of your own in any form that `adapt` takes, or a .tar of one.
        root: the folder that holds the published data sets.

    Raises:
        DataError: a file is missing; the message says which, where it was looked for, and where
            the data set is described.
    """
    text = os.fspath(data)
    if text in LAYOUTS and not Path(text).exists():
        if root is None:
            raise DataError(
                f"{text} is one of the published data sets, and no root folder was given to find "
                f"it below; name that with --root, arranged as {DESCRIBED} says"
            )
        return read_published(text, Path(root) / LAYOUTS[text].folder)
    path = Path(text)
    if not path.exists():
        raise DataError(
            f"{readable(path)} is neither a file or folder nor one of the published data sets: "
            f"{', '.join(LAYOUTS)}"
        )
    name = recognised(path)
    if name is not None:
        return read_published(name, path)
    if path.suffix == ".tar":
        return _own(_unpacked(path), path.stem)
    return _own(path, path.resolve().stem if path.is_file() else path.resolve().name)


def _own(path: Path, name: str) -> Dataset:
    pool = read(path)
    notes = list(pool.notes)
    train, test = _photos(pool, "train"), _photos(pool, "test")
    if not test:
        train, test = _hold_out(train, pool.classes)
        notes.append(
            f"{readable(path)} has no test/ folder: {HELD_OUT:.0%} of each class were held out "
            "for testing, the same for every seed"
        )
    if pool.skipped:
        notes.append(f"{readable(path)}: {len(pool.skipped)} of the files not used")
    return Dataset(
        name=name,
        title=name,
        classes=dict(pool.phrases),
        train=tuple(train),
        test=tuple(test),
        notes=tuple(notes),
    )


def _photos(pool: Pool, part: str) -> list[Photo]:
    return [Photo(item.image, item.label, item.content) for item in getattr(pool, part) or []]


def _hold_out(photos: list[Photo], classes: Sequence[str]) -> tuple[list[Photo], list[Photo]]:
    kept, held = [], []
    for index, label in enumerate(classes):
        own = sorted((p for p in photos if p.label == index), key=lambda p: p.key)
        n = min(max(1, round(HELD_OUT * len(own))), len(own) - 1)
        if n < 1:
            raise DataError(
                f"class {label!r} has one image, which cannot be used for both training and "
                "testing; add others"
            )
        order = permutation(label, 0, len(own))
        held += [own[i] for i in order[:n]]
        kept += [own[i] for i in order[n:]]
    return kept, held


def _unpacked(archive: Path) -> Path:
    """The archive's content in a temporary folder, deleted when the process ends."""
    target = tempfile.mkdtemp(prefix="fewclip-bench-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{readable(archive)} cannot be unpacked: {error}") from error
    inside = Path(target)
    while len(entries := list(inside.iterdir())) == 1 and entries[0].is_dir():
        inside = entries[0]
    return inside
