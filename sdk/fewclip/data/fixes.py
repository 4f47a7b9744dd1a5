"""Corrections to a data set, from the CSV that `fewclip check` suggests. Files stay as they are.

A row names an image as the data set does (`photos/cat/1.jpg`), and says `remove`, or `relabel` and
the new label. Delete the rows you disagree with, or clear their action.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

from fewclip.class_set import clean_label, listed
from fewclip.data.csv_file import csv_rows
from fewclip.data.found import Found, Scan, Skipped
from fewclip.errors import DataError
from fewclip.images import readable

ACTIONS = ("remove", "relabel", "")


class Fix(NamedTuple):
    """What to do with one image: "remove", or "relabel" to `label`."""

    action: str
    label: str


def read_fixes(path: str | os.PathLike[str]) -> dict[str, Fix]:
    """Image, named as in the data set -> what to do with it.

    Raises:
        DataError: no such file, a column is missing, an unknown action, or an image named twice.
    """
    fixes: dict[str, Fix] = {}
    for row, cells in csv_rows(Path(path), ("image", "action", "new_label")):
        image, action, label = (
            cells["image"],
            cells["action"].lower(),
            clean_label(cells["new_label"]),
        )
        where = f"{readable(path)} row {row}"
        if action not in ACTIONS:
            raise DataError(f"{where}: unknown action {action!r}; use remove, relabel or nothing")
        if action == "relabel" and not label:
            raise DataError(f"{where}: relabel without a new_label; name the class, or use remove")
        if image in fixes:
            raise DataError(f"{where}: {image!r} is named twice; keep one of the rows")
        if action:
            fixes[image] = Fix(action, label)
    return fixes


def apply_fixes(found: Scan, path: str | os.PathLike[str]) -> None:
    """Apply the CSV's corrections to what was found, and add a note about it.

    Raises:
        DataError: the CSV is broken, or names images or a class that the data set does not have.
    """
    fixes = read_fixes(path)
    known = {each.source for images in found.splits.values() for each in images}
    missing = sorted(set(fixes) - known)
    if missing:
        raise DataError(
            f"{readable(path)} names {listed(missing, 3)}, not found in {found.name}; the fixes "
            "were made for other data or the folder was renamed: run `fewclip check` again"
        )
    strange = sorted({f.label for f in fixes.values() if f.label} - found.labels)
    if strange:
        raise DataError(
            f"{readable(path)} relabels to {listed(strange)}, no class of {found.name}; use one of "
            f"{listed(sorted(found.labels))}"
        )
    for split, images in found.splits.items():
        found.splits[split] = [_fixed(i, fixes.get(i.source)) for i in images if _kept(i, fixes)]
    removed = [source for source, fix in fixes.items() if fix.action == "remove"]
    reason = f"left out as {readable(Path(path).name)} says"
    found.skipped.extend(Skipped(source, reason) for source in removed)
    found.notes.append(
        f"{readable(Path(path).name)}: {len(removed)} images left out, "
        f"{len(fixes) - len(removed)} labels changed"
    )


def _kept(image: Found, fixes: dict[str, Fix]) -> bool:
    return image.source not in fixes or fixes[image.source].action != "remove"


def _fixed(image: Found, fix: Fix | None) -> Found:
    return image if fix is None else dataclasses.replace(image, label=fix.label)
