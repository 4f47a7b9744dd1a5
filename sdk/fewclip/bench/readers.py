"""Reads the fifteen published data sets using the table in `layouts.py`. It opens no image."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fewclip.bench.layouts import IMAGENET_NAMES, LAYOUTS, Layout
from fewclip.bench.photos import Dataset, Photo
from fewclip.errors import DataError
from fewclip.images import image_suffixes, readable


def recognised(path: Path) -> str | None:
    """Which of the fifteen a folder is, by its name and its list of images; None if none."""
    marks = {"lists": "variants.txt"}
    for name, layout in LAYOUTS.items():
        mark = layout.split or marks.get(layout.kind, IMAGENET_NAMES)
        if path.resolve().name == layout.folder and (path / mark).is_file():
            return name
    return None


def read_published(name: str, folder: Path) -> Dataset:
    """Read one of the fifteen.

    Raises:
        DataError: a file is missing or malformed.
    """
    layout = LAYOUTS[name]
    found = _READERS[layout.kind](layout, folder)
    return Dataset(name=name, title=layout.title, layout=layout, **found)


def _missing(layout: Layout, what: Path) -> DataError:
    return DataError(
        f"{layout.title} lacks {what.name}, which was looked for at {readable(what)}; how its "
        f"files are to be arranged is described at {layout.described}"
    )


def _lines(layout: Layout, path: Path) -> list[list[str]]:
    """Lines as [first word, the rest], blank ones left out."""
    if not path.is_file():
        raise _missing(layout, path)
    stripped = [line.strip() for line in path.read_text("utf-8").splitlines()]
    return [[*line.split(" ", 1), ""][:2] for line in stripped if line]


def _listed(
    layout: Layout, folder: Path, rows: dict[str, list[tuple[str, int, str]]]
) -> dict[str, Any]:
    """Rows (path below the images, label, class name) of train and test, as a Dataset's fields."""
    names: dict[int, str] = {}
    for part in rows.values():
        for _, label, name in part:
            names[label] = layout.renamed.get(name, name)
    twice = {name for name, n in Counter(names.values()).items() if n > 1}
    order = sorted(names)
    keys = [f"{names[i]} ({i})" if names[i] in twice else names[i] for i in order]
    index = {label: i for i, label in enumerate(order)}
    photos = {
        part: tuple(_photo(layout, folder, path, index[label]) for path, label, _ in listed)
        for part, listed in rows.items()
    }
    phrases = [names[i].replace("_", " ") for i in order]
    return {"classes": dict(zip(keys, phrases, strict=True)), **photos}


def _photo(layout: Layout, folder: Path, path: str, label: int) -> Photo:
    place = folder / layout.images / path
    if not place.is_file():
        raise _missing(layout, place)
    return Photo(place, label, path)


def _read_split(layout: Layout, folder: Path) -> dict[str, Any]:
    file = folder / layout.split
    if not file.is_file():
        raise _missing(layout, file)
    try:
        content = json.loads(file.read_bytes())
        rows = {
            part: [(str(path), int(label), str(name)) for path, label, name in content[part]]
            for part in ("train", "test")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{readable(file)} is not {layout.title}'s split file, an object whose 'train' and "
            f"'test' list [path, label, class]: {error!r}; get it again from {layout.described}"
        ) from error
    return _listed(layout, folder, rows)


def _read_lists(layout: Layout, folder: Path) -> dict[str, Any]:
    variants = [" ".join(line).strip() for line in _lines(layout, folder / "variants.txt")]
    index = {name: i for i, name in enumerate(variants)}
    rows: dict[str, list[tuple[str, int, str]]] = {}
    for part in ("train", "test"):
        file = folder / f"images_variant_{part}.txt"
        pairs = _lines(layout, file)
        unknown = sorted({name for _, name in pairs} - set(index))
        if unknown:
            raise DataError(
                f"{readable(file)} names {unknown[0]!r}, which variants.txt does not; get both "
                f"again from {layout.described}"
            )
        rows[part] = [(f"{number}.jpg", index[name], name) for number, name in pairs]
    return _listed(layout, folder, rows)


def _read_imagenet(layout: Layout, folder: Path) -> dict[str, Any]:
    train, names = _by_wnid(layout, folder, "train")
    test, tested = _by_wnid(layout, folder, "val")
    lacking = sorted(set(names) ^ set(tested))
    if lacking:
        raise DataError(
            f"{readable(folder / layout.images)} has class {lacking[0]} in only one of train/ and "
            f"val/; both need the same classes, as {layout.described} says"
        )
    return {"classes": names, "train": train, "test": test}


def _read_wnids(layout: Layout, folder: Path) -> dict[str, Any]:
    test, names = _by_wnid(layout, folder, "")
    return {"classes": names, "train": (), "test": test}


def _by_wnid(layout: Layout, folder: Path, part: str) -> tuple[tuple[Photo, ...], dict[str, str]]:
    """Images of the class folders that exist, in WordNet order, and their {wnid: phrase}."""
    names = dict(_lines(layout, folder / IMAGENET_NAMES))
    images = folder / layout.images / part
    if not images.is_dir():
        raise _missing(layout, images)
    there = sorted(entry.name for entry in images.iterdir() if entry.is_dir())
    unnamed = [wnid for wnid in there if wnid not in names]
    if unnamed or not there:
        what = f"the folder {unnamed[0]}, which {IMAGENET_NAMES} does not name" if unnamed else ""
        raise DataError(
            f"{readable(images)} holds {what or 'no class folders'}; it should hold folders named "
            f"by WordNet id, as {layout.described} says"
        )
    return _in_folders(images, there), {w: names[w].replace("_", " ") for w in there}


def _read_numbers(layout: Layout, folder: Path) -> dict[str, Any]:
    names = dict(_lines(layout, folder / IMAGENET_NAMES))
    images = folder / layout.images
    for number in range(len(names)):
        if not (images / str(number)).is_dir():
            raise _missing(layout, images / str(number))
    test = _in_folders(images, [str(number) for number in range(len(names))])
    classes = {w: name.replace("_", " ") for w, name in names.items()}
    return {"classes": classes, "train": (), "test": test}


def _in_folders(images: Path, folders: Sequence[str]) -> tuple[Photo, ...]:
    suffixes = image_suffixes()
    return tuple(
        Photo(images / name / file, label, f"{name}/{file}")
        for label, name in enumerate(folders)
        for file in sorted(os.listdir(images / name))
        if Path(file).suffix.lower() in suffixes and not file.startswith(".")
    )


_READERS: dict[str, Callable[[Layout, Path], dict[str, Any]]] = {
    "split": _read_split,
    "lists": _read_lists,
    "folders": _read_imagenet,
    "wnids": _read_wnids,
    "numbers": _read_numbers,
}
