"""Finds labelled images in each of the five forms of data. It opens no image.

What it finds is a claim only ("this file is labelled cat"); `pool.py` verifies it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from fewclip.class_set import clean_label
from fewclip.data.csv_file import csv_rows, image_beside, is_csv
from fewclip.data.found import SPLITS, Found, Scan, Skipped
from fewclip.data.label_tools import chosen, described
from fewclip.data.paths import existing, visible
from fewclip.errors import DataError
from fewclip.images import Image, image_suffixes, readable

# A folder, a CSV, {label: [images]}, or [(image, label)].
Data: TypeAlias = (
    str | os.PathLike[str] | Mapping[str, Iterable[Image]] | Iterable[tuple[Image, str]]
)

_ABSENT = {"0", "0.0"}  # CVAT: a person marked it as absent


def scan(data: Data) -> Scan:
    """Find the labelled images of a data set.

    Raises:
        DataError: it has none of the five forms, does not exist, or is empty.
    """
    if isinstance(data, (str, os.PathLike)):
        from fewclip.data.shards import holds_shards, is_url, scan_shards

        if is_url(data):
            return scan_shards(os.fspath(data))
        path = existing(data)
        if holds_shards(path):
            return scan_shards(path)
        if path.is_dir():
            return _scan_folder(path)
        if is_csv(path):
            return _scan_csv(path)
        raise DataError(
            f"{readable(path)} is neither a folder nor a .csv file; give a folder with one "
            "sub-folder per class (unpack an archive first), a CSV with image_path,label, a "
            "Parquet or Arrow file, or a WebDataset .tar"
        )
    if isinstance(data, Mapping):
        return _scan_mapping(data)
    if isinstance(data, Iterable):
        return _scan_pairs(data)
    raise DataError(
        f"data is a {type(data).__name__}; give a folder, a CSV, a dict {{label: [images]}} or a "
        "list of (image, label)"
    )


def _scan_folder(folder: Path) -> Scan:
    entries = visible(folder)
    folders = [entry for entry in entries if os.path.isdir(entry)]
    if not folders:
        what = "holds files but no class folders" if entries else "is empty"
        raise DataError(
            f"{readable(folder)} {what}; make one sub-folder per class and put its images there"
        )
    name = readable(folder.resolve().name if folder.name in ("", "..") else folder.name)
    result = Scan(readable(folder), {"train": []})
    splits = [f for f in folders if f.name in SPLITS and _is_split(f)]
    result.divided = any(f.name == "train" for f in splits) or len(splits) == len(folders)
    if not result.divided:
        if all(f.name in SPLITS for f in folders):
            result.notes.append(
                f"{' and '.join(f.name for f in folders)} were read as classes because they hold "
                "images and not class folders"
            )
        _scan_classes(folder, name, "train", result)
        return result
    for entry in entries:
        source = f"{name}/{readable(entry.name)}"
        if entry in splits:
            _scan_classes(entry, source, SPLITS[entry.name], result)
        else:
            reason = "not a train, val or test folder that holds class folders"
            result.skipped.append(Skipped(source, reason))
    return result


def _is_split(folder: Path) -> bool:
    """A split holds folders, a class holds images; a stray text file means nothing."""
    entries = visible(folder)
    return any(os.path.isdir(entry) and any(visible(entry)) for entry in entries) and not any(
        os.path.isfile(entry) and entry.suffix.lower() in image_suffixes() for entry in entries
    )


def _scan_classes(folder: Path, name: str, split: str, result: Scan) -> None:
    for entry in visible(folder):
        source = f"{name}/{readable(entry.name)}"
        if not os.path.isdir(entry):
            result.skipped.append(Skipped(source, "outside the class folders"))
            continue
        label = _checked_label(entry.name, source)
        if split == "train":
            result.labels.add(label)
        for file in visible(entry):
            inner = f"{source}/{readable(file.name)}"
            if os.path.isdir(file):
                reason = "a folder inside a class folder; move its images up into the class folder"
                result.skipped.append(Skipped(inner, reason))
            else:
                result.splits.setdefault(split, []).append(Found(file, label, inner))


def _scan_csv(path: Path) -> Scan:
    result = Scan(readable(path), {"train": []})
    names = described(path)
    for row, cells in csv_rows(path, ("image_path", "label"), optional=("confidence",)):
        if cells.pop("confidence") in _ABSENT:
            continue
        source = f"{readable(path.name)} row {row} ({cells['image_path']})"
        empty = [column for column, cell in cells.items() if not cell]
        if empty:
            result.skipped.append(Skipped(source, f"no {' and no '.join(empty)} in this row"))
            continue
        choice = chosen(cells["label"])
        if choice is None:
            result.skipped.append(Skipped(source, f"not one label but {cells['label']}"))
            continue
        label = clean_label(names.get(choice, choice))
        result.labels.add(label)
        result.splits["train"].append(Found(image_beside(path, cells["image_path"]), label, source))
    if not result.labels and not result.skipped:
        raise DataError(f"{readable(path)} has no rows below its header; add one per image")
    return result


def _scan_mapping(data: Mapping[Any, Any]) -> Scan:
    result = Scan("the dict", {"train": []})
    for raw, images in data.items():
        label = _checked_label(raw, "a key of the dict")
        if isinstance(images, (str, bytes, os.PathLike)) or not isinstance(images, Iterable):
            raise DataError(
                f"the dict's {label!r} holds a {type(images).__name__}; give a list of images"
            )
        result.labels.add(label)
        result.splits["train"] += [
            Found(image, label, _given_source(image, f"{label}[{i}]"))
            for i, image in enumerate(images)
        ]
    if not result.labels:
        raise DataError("the dict is empty; give {label: [images]}")
    return result


def _scan_pairs(data: Iterable[Any]) -> Scan:
    result = Scan("the list", {"train": []})
    for i, pair in enumerate(data):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(
                f"item {i} of the list is a {type(pair).__name__}; give (image, label) pairs"
            )
        label = _checked_label(pair[1], f"item {i} of the list")
        result.labels.add(label)
        source = _given_source(pair[0], f"item {i}")
        result.splits["train"].append(Found(pair[0], label, source))
    if not result.labels:
        raise DataError("the list is empty; give (image, label) pairs")
    return result


def _checked_label(label: object, where: str) -> str:
    if not isinstance(label, str) or not clean_label(label):
        raise DataError(
            f"{where}: {label!r} is not a class name; give the words you would use for what it "
            "shows"
        )
    try:
        label.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: the class name is not valid UTF-8 and cannot be stored; rename it"
        ) from error
    return clean_label(label)


def _given_source(image: object, place: str) -> str:
    return f"{place} ({readable(image)})" if isinstance(image, (str, os.PathLike)) else place
