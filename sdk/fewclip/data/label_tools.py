"""How Label Studio and CVAT spell images and labels in the CSVs they export. It opens no image.

Label Studio: `image` is a file's address on its server, and `choice` is the label, or JSON if
several were chosen. CVAT ("Open Images"): `ImageID` has no extension, `LabelName` is an id that
class-descriptions.csv explains, and rows of `Confidence` 0 say what an image does not show.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

_UPLOAD = re.compile(r"/data/upload/(?:\d+/)?(?:[0-9a-f]{8}-)?(?P<name>[^/]+)$")
_LOCAL = "/data/local-files/?d="
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def spellings(cell: str, table: Path) -> Iterator[Path]:
    """The paths where a cell's image may be, likeliest first, relative to its table."""
    folder = table.parent
    yield folder / cell
    yield folder / cell.replace("\\", "/")
    if cell.startswith(_LOCAL):
        local = Path(unquote(cell[len(_LOCAL) :]))
        parts = [part for part in local.parts if part not in ("/", "..")]
        yield from (folder.joinpath(*parts[first:]) for first in range(len(parts)))
    elif match := _UPLOAD.match(cell):
        original = unquote(match["name"])
        stored = unquote(cell.rpartition("/")[2])
        for name in (stored, original):
            yield from (folder / name, folder / "images" / name)
        yield folder / unquote(cell[len("/data/") :])
    elif cell and not Path(cell).suffix:
        subset = table.name.partition("-annotations")[0]
        for place in (folder, folder / "images", folder.parent / "images" / subset):
            yield from (place / f"{cell}{ending}" for ending in _ENDINGS)


def chosen(cell: str) -> str | None:
    """The label of a cell; None if several were chosen."""
    if not cell.startswith(("{", "[")):
        return cell
    try:
        plain = json.loads(cell)
    except ValueError:
        return cell
    choices = plain.get("choices") if isinstance(plain, dict) else plain
    if isinstance(choices, list) and len(choices) == 1:
        return str(choices[0])
    return None


def described(table: Path) -> dict[str, str]:
    """Label id -> name, from class-descriptions.csv beside the table, if there is one."""
    file = table.parent / "class-descriptions.csv"
    if not file.is_file():
        return {}
    with open(file, encoding="utf-8-sig", newline="") as text:
        return {row[0]: row[1] for row in csv.reader(text) if len(row) == 2}
