"""Labelled images of Parquet, Arrow and WebDataset files, or behind a URL -> Scan. `bulk` reads
them; this sorts them into classes and splits.

The encoded images are held in memory: data to adapt to or evaluate on is small.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

from fewclip.bulk import sources
from fewclip.bulk.records import Record, is_url
from fewclip.bulk.resume import Pending
from fewclip.class_set import clean_label
from fewclip.data.found import SPLITS, Found, Scan, Skipped
from fewclip.data.paths import visible
from fewclip.errors import DataError
from fewclip.images import readable

__all__ = ["holds_shards", "is_url", "scan_shards"]


def holds_shards(path: Path) -> bool:
    """Whether a path is such a file, or a folder of them, with or without splits."""
    if path.is_file():
        return sources.is_container(path.name)
    files = [file.name for file in _two_levels(path)]
    # A folder of photos stays a folder of photos, even with an archive in it.
    return any(map(sources.is_container, files)) and not any(map(_is_image, files))


def scan_shards(path: Path | str) -> Scan:
    """Find the labelled images of one file, of a folder of files, or behind a URL.

    The split is that of the folder ("train/0.tar") or of the file's name
    ("train-00000-of-00002.parquet"); without either, all is "train". An image behind a URL that
    comes without a label is labelled by its folder, like photos on this machine.

    Raises:
        DataError: no image has a label.
        MissingExtraError: Parquet and Arrow need the `scale` extra.
    """
    result = Scan(readable(path), {"train": []})
    for shard in sources.shards([path]):
        split = _split_of(shard.name, path)
        result.divided = result.divided or split is not None
        for record in Pending(shard).records():
            if record.label is None and isinstance(path, str):
                record, split = _by_folder(record, path)
                result.divided = result.divided or split is not None
            _add(record, split or "train", result)
    if not result.labels and not any(result.splits.values()):
        raise DataError(
            f"{result.name} holds no image with a label; a Parquet or Arrow file needs a column "
            "`label` or `class`, a sample of a .tar a .cls, .txt or .json beside its image"
            + _first(result.skipped)
        )
    return result


def _by_folder(record: Record, url: str) -> tuple[Record, str | None]:
    """The record with the name of its folder for a label, and its split: URL/[train/]LABEL/FILE."""
    root = url.rstrip("/") + "/"
    folders = record.name.removeprefix(root).split("/")[:-1]
    if not record.name.startswith(root):  # a pattern, or a file
        return record, None
    split = SPLITS.get(folders[0]) if len(folders) == 2 else None
    if len(folders) == (1 if split is None else 2):
        record = dataclasses.replace(record, label=folders[-1])
    return record, split


def _add(record: Record, split: str, result: Scan) -> None:
    if record.label is None or not clean_label(record.label):
        result.skipped.append(Skipped(record.name, _reason(record)))
        return
    try:
        image = record.load()
    except (DataError, OSError) as error:
        result.skipped.append(Skipped(record.name, str(error)))
        return
    label = clean_label(record.label)
    if split == "train":
        result.labels.add(label)
    result.splits.setdefault(split, []).append(Found(image, label, record.name))


def _reason(record: Record) -> str:
    """Why a record has no label: it may not be an image, but the error of a broken file."""
    try:
        record.load()
    except (DataError, OSError) as error:
        return str(error)
    return "no label"


def _split_of(name: str, source: Path | str) -> str | None:
    if isinstance(source, Path) and source.is_file():
        return None
    inner = PurePath(name.rpartition("://")[2]).parts[-2:]
    if isinstance(source, Path):
        inner = Path(name).relative_to(source).parts
    words = [*inner[:-1], *re.split(r"[-_.]", inner[-1])[:1]]
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _is_image(name: str) -> bool:
    return sources.is_readable(name) and not sources.is_container(name)


def _two_levels(folder: Path) -> Iterator[Path]:
    for entry in visible(folder):
        if entry.is_dir():
            yield from (each for each in visible(entry) if not each.is_dir())
        else:
            yield entry


def _first(skipped: list[Skipped]) -> str:
    return f" ({skipped[0].source}: {skipped[0].reason})" if skipped else ""
