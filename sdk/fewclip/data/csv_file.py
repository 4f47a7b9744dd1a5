"""The rows of a CSV that names images. It opens no image and judges no label."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

from fewclip.errors import DataError
from fewclip.images import readable


def is_csv(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv")


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Every row that is not blank: (its number as a spreadsheet counts, {column: cell}).

    Raises:
        DataError: it is unreadable, not text, not a CSV, or lacks one of the columns.
    """
    text = _text(path)
    header = text.split("\n", 1)[0].strip()
    # Spreadsheets write ';' where ',' is the decimal mark.
    delimiter = max(",;\t", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [name.strip().lower() for name in next(rows, [])]
        missing = [column for column in columns if column not in names]
        if missing:
            raise DataError(
                f"{readable(path)} has no column {' and no column '.join(missing)}; its first row "
                f"reads {header[:80]!r}, where {','.join(columns)} is needed"
            )
        for number, cells in enumerate(rows, start=2):
            if any(cell.strip() for cell in cells):
                padded = cells + [""] * len(names)
                yield number, {c: padded[names.index(c)].strip() for c in columns}
    except csv.Error as error:
        raise DataError(f"{readable(path)} line {rows.line_num}: {error}; mend it there") from error


def image_beside(path: Path, cell: str) -> Path:
    """The image that a cell names, relative to the CSV; '\\' is '/' where it has to be."""
    image = path.parent / cell
    slashed = path.parent / cell.replace("\\", "/")
    return slashed if os.path.exists(slashed) and not os.path.exists(image) else image


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # a spreadsheet's "Unicode text"
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{readable(path)} is not UTF-8; save it as 'CSV UTF-8'") from error
    except OSError as error:
        raise DataError(
            f"{readable(path)} cannot be read ({error.strerror}); check its permissions"
        ) from error
