"""The rows of a CSV that names images, as people, Label Studio and CVAT write it. It opens none.

It is read row by row, so its length costs no memory.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from fewclip.data.label_tools import spellings
from fewclip.errors import DataError
from fewclip.images import readable

# What others call these columns: spreadsheets, Label Studio ("image", "choice") and the Open
# Images format of CVAT ("ImageID", "LabelName"). Compared in lower case; the first found counts.
ALIASES = {
    "image_path": (
        "image_path", "path", "filename", "file_name", "filepath", "file_path", "file", "image",
        "imageid", "img",
    ),
    "label": (
        "label", "class", "class_name", "classname", "category", "choice", "labelname", "target",
    ),
}  # fmt: skip


def is_csv(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv")


def csv_rows(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    fs: Any = None,
    *,
    optional: Sequence[str] = (),
) -> Iterator[tuple[int, dict[str, str]]]:
    """Every row that is not blank: (its number as a spreadsheet counts, {column: cell}).

    Args:
        columns: each may go by any of its `ALIASES` in the file.
        optional: columns that may be missing; their cells are then empty.
        fs: the fsspec file system that `path` is on; None for this machine's.

    Raises:
        DataError: it is unreadable, not text, not a CSV, or lacks one of the columns.
    """
    try:
        with _opened(path, fs) as file, _text(file) as text:
            yield from _rows(text, readable(path), columns, optional)
    except UnicodeDecodeError as error:
        raise DataError(f"{readable(path)} is not UTF-8; save it as 'CSV UTF-8'") from error
    except OSError as error:
        raise DataError(
            f"{readable(path)} cannot be read ({error.strerror or error}); check its permissions"
        ) from error


def _rows(
    text: IO[str], name: str, columns: Sequence[str], optional: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    header = text.readline()
    # Spreadsheets write ';' where ',' is the decimal mark.
    delimiter = max(",;\t", key=header.count)
    rows = csv.reader(text, delimiter=delimiter)
    try:
        names = [cell.strip().lower() for cell in next(csv.reader([header], delimiter=delimiter))]
        places = _places(names, columns, name, header.strip())
        places |= {c: at[0] for c in optional if (at := _found(names, c))}
        for number, cells in enumerate(rows, start=2):
            if any(cell.strip() for cell in cells):
                padded = cells + [""] * len(names)
                found = {column: padded[at].strip() for column, at in places.items()}
                yield number, dict.fromkeys(optional, "") | found
    except csv.Error as error:
        raise DataError(f"{name} line {rows.line_num + 1}: {error}; fix it there") from error


def _found(names: list[str], column: str) -> list[int]:
    """Indices at which a column may be, likeliest first."""
    return [names.index(each) for each in ALIASES.get(column, (column,)) if each in names]


def _places(names: list[str], columns: Sequence[str], file: str, header: str) -> dict[str, int]:
    """{column: its index}."""
    places, missing = {}, []
    for column in columns:
        if found := _found(names, column):
            places[column] = found[0]
        else:
            missing.append(column)
    if missing:
        others = "; ".join(f"{c} may also be called {', '.join(ALIASES[c][1:])}" for c in missing)
        raise DataError(
            f"{file} has no column {' and no column '.join(missing)}; its first row reads "
            f"{header[:80]!r}, where {','.join(columns)} is needed ({others})"
        )
    return places


def image_beside(path: Path, cell: str) -> Path:
    """The image that a cell names, relative to the CSV; `label_tools` knows other spellings."""
    found = (each for each in spellings(cell, path) if os.path.exists(each))
    return next(found, path.parent / cell)


def _opened(path: str | os.PathLike[str], fs: Any) -> IO[bytes]:
    return open(path, "rb") if fs is None else fs.open(os.fspath(path), "rb")


def _text(file: IO[bytes]) -> IO[str]:
    start = file.read(2)
    file.seek(0)
    utf16 = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # a spreadsheet's "Unicode text"
    return io.TextIOWrapper(file, "utf-16" if utf16 else "utf-8-sig", newline="")
