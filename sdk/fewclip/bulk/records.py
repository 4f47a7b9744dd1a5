"""Records, each one image, and the shards that hold them. It searches for nothing.

A shard is what one worker reads in one go, and a record is one image. The order of records is the
same every time, which resuming relies on.

No URL is ever taken from inside a file: cells of a CSV or Parquet column are paths relative to it.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from fewclip.data.csv_file import image_beside
from fewclip.errors import DataError
from fewclip.images import Image, readable

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclasses.dataclass(frozen=True)
class Record:
    """One image of a source.

    Attributes:
        name: what it is called in its row.
        load: the image, as `images.load_image` takes it; may raise DataError or OSError.
        label: its label, if the source gives one.
    """

    name: str
    load: Callable[[], Image]
    label: str | None = None


class Shard(Protocol):
    """Images that are read one after another; can be sent to another process."""

    @property
    def name(self) -> str: ...

    def records(self, *, names_only: bool = False) -> Iterator[Record]:
        """In the same order every time. With `names_only` no image is loaded, nor can be.

        Raises:
            DataError, OSError: the shard is broken; the records before that are fine.
        """
        ...

    def count(self) -> int | None:
        """How many records; None if counting them would be expensive."""
        ...


@dataclasses.dataclass(frozen=True)
class Files:
    """Image files by path, on `fs`, or on this machine if that is None."""

    paths: tuple[str, ...]
    fs: Any = None

    @property
    def name(self) -> str:
        return called(self.paths[0], self.fs)

    def records(self, *, names_only: bool = False) -> Iterator[Record]:
        for path in self.paths:
            yield file_record(path, self.fs)

    def count(self) -> int:
        return len(self.paths)


@dataclasses.dataclass(frozen=True)
class Cells:
    """Image files named by the cells of a table.

    Attributes:
        cells: each with its label, None if the table has none.
    """

    table: str
    cells: tuple[tuple[str, str | None], ...]
    fs: Any = None

    @property
    def name(self) -> str:
        return called(self.table, self.fs)

    def records(self, *, names_only: bool = False) -> Iterator[Record]:
        for cell, label in self.cells:
            yield cell_record(cell, self.table, self.fs, label)

    def count(self) -> int:
        return len(self.cells)


def file_record(path: str, fs: Any, label: str | None = None) -> Record:
    """The record of one image file."""
    if fs is None:
        return Record(readable(path), lambda: path, label)
    return Record(called(path, fs), lambda: _fetched(path, fs), label)


def cell_record(cell: str, table: str, fs: Any, label: str | None = None) -> Record:
    """The record of the image that a cell names; a forbidden path fails when it is loaded."""
    try:
        return file_record(_cell_path(cell, table, fs), fs, label)
    except DataError as error:
        return failed(cell, error)


def failed(name: str, error: Exception) -> Record:
    """A record that raises `error` when its image is loaded."""

    def load() -> Image:
        raise error

    return Record(name, load)


def _cell_path(cell: str, table: str, fs: Any) -> str:
    """The path that a cell of a CSV or Parquet column names, relative to its table's folder.

    Raises:
        DataError: the cell is a URL, or leads out of a folder that is not on this machine.
    """
    if is_url(cell):
        raise DataError(
            f"{cell} is a URL, and none is taken from inside a file; name it as a source, or "
            "give paths beside the file"
        )
    if not cell:
        raise DataError(f"an empty cell in {called(table, fs)}; give a path")
    if fs is None:
        return str(image_beside(Path(table), cell))
    if cell.startswith("/") or ".." in cell.split("/"):
        raise DataError(f"{cell} is outside the folder of {called(table, fs)}; give a path in it")
    return f"{table.rpartition('/')[0]}/{cell}"


def called(path: str, fs: Any) -> str:
    """What a path is called in a row: its URL if it has one, else the path."""
    return readable(path) if fs is None else str(fs.unstrip_protocol(path))


def opened(path: str, fs: Any) -> IO[bytes]:
    """The file, open for reading."""
    return open(path, "rb") if fs is None else fs.open(path, "rb")


def _fetched(path: str, fs: Any) -> bytes:
    try:
        return bytes(fs.cat_file(path))
    except OSError:
        raise
    except Exception as error:  # each file system has exceptions of its own
        raise DataError(f"cannot be fetched ({type(error).__name__}: {error})") from error


def is_url(source: str | os.PathLike[str]) -> bool:
    """Whether a source that the caller named is a URL."""
    return isinstance(source, str) and _URL.match(source) is not None
