"""What to predict -> shards of records, found lazily. It decodes no image and holds no list of all.

A source is named by the caller: a file or folder, or the URL of one. A shard is what one worker
reads in one go (some files of a folder, one tar, one Parquet file), and a record is one image. The
order of both is the same in every run over the same data, on which resuming relies.

No URL is ever taken from inside a file: cells of a CSV or of a Parquet column are paths beside it.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from fewclip.data.csv_file import csv_rows, image_beside, is_csv
from fewclip.data.discovery import existing, visible
from fewclip.data.label_tools import chosen
from fewclip.errors import DataError
from fewclip.images import Image, image_suffixes, readable

T = TypeVar("T")

LISTED = 1000  # files of a folder or rows of a CSV in one shard
_TARS = (".tar", ".tar.gz", ".tgz")
_TABLES = (".parquet", ".arrow")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# The column of a table that holds images or their paths, the first of these that is there.
IMAGE_COLUMNS = ("image", "image_path", "filename", "file_name", "path", "file", "bytes")


@dataclasses.dataclass(frozen=True)
class Record:
    """One image of a source.

    Attributes:
        name: what it is called in its row.
        load: the image, as `images.load_image` takes it; may raise DataError or OSError.
        label: what it is said to show, where the source says it.
    """

    name: str
    load: Callable[[], Image]
    label: str | None = None


class Shard(Protocol):
    """Images that are read one after another; can be sent to another process."""

    @property
    def name(self) -> str: ...

    def records(self, *, names_only: bool = False) -> Iterator[Record]:
        """In the same order every time. With `names_only` nothing is loaded, nor can be.

        Raises:
            DataError, OSError: the shard is broken; what came before is whole.
        """
        ...

    def count(self) -> int | None:
        """How many records, where that costs little to know."""
        ...


@dataclasses.dataclass(frozen=True)
class Files:
    """Some image files by path, on `fs` or on this machine where that is None."""

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
    """Some image files as the cells of a table name them.

    Attributes:
        cells: each with its label, where the table has one.
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
    """The record of what a cell names; one that may not be followed fails when it is loaded."""
    try:
        return file_record(_cell_path(cell, table, fs), fs, label)
    except DataError as error:
        return failed(cell, error)


def failed(name: str, error: Exception) -> Record:
    """A record whose image cannot be had."""

    def load() -> Image:
        raise error

    return Record(name, load)


def _cell_path(cell: str, table: str, fs: Any) -> str:
    """The path that a cell of a CSV or of a column names, from the folder of its table.

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
    """What a path is called in a row: the URL it has, or the path."""
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


def shards(
    sources: Sequence[str | os.PathLike[str]], *, column: str | None = None
) -> Iterator[Shard]:
    """All shards of all sources, in order.

    Args:
        sources: image files, folders (images, tar shards, Parquet and Arrow files at any depth),
            CSVs, .tar, .parquet and .arrow files, folders of `datasets.save_to_disk`; or the URL
            of any of these, or of a pattern ("s3://bucket/shards/*.tar").
        column: of a table, the one with images or paths; None for the first of `IMAGE_COLUMNS`.

    Raises:
        DataError: a source is not there or holds no images.
        MissingExtraError: reading it needs an extra.
    """
    for source in sources:
        found = _source(source, column)
        first = next(found, None)
        if first is None:
            raise DataError(
                f"{readable(source)} holds no images; name image files, a folder, a CSV, a "
                "Parquet or Arrow file, or .tar shards"
            )
        yield first
        yield from found


def check(sources: Sequence[str | os.PathLike[str]], *, column: str | None = None) -> None:
    """Find the first shard of each source, before any long work.

    Raises:
        As `shards`.
    """
    for source in sources:
        next(shards([source], column=column))


def is_url(source: str | os.PathLike[str]) -> bool:
    """Whether a source that the caller named is a URL."""
    return isinstance(source, str) and _URL.match(source) is not None


def _source(source: str | os.PathLike[str], column: str | None) -> Iterator[Shard]:
    if is_url(source):
        from fewclip.bulk.urls import url_shards

        yield from url_shards(os.fspath(source), column)
        return
    path = existing(source)
    if path.is_dir():
        yield from grouped(_below(path), column)
    elif is_csv(path):
        yield from csv_shards(str(path))
    else:
        yield container(str(path), column) or Files((str(path),))


def container(path: str, column: str | None, fs: Any = None) -> Shard | None:
    """The shard that a tar, Parquet or Arrow file is; None for any other file.

    Args:
        fs: the fsspec file system that `path` is on; None for this machine's.
    """
    name = path.lower()
    if name.endswith(_TARS):
        from fewclip.bulk.tar_shards import TarShard

        return TarShard(path, fs)
    if name.endswith(_TABLES):
        from fewclip.bulk.tables import TableShard

        shard = TableShard(path, column, fs)
        shard.check()
        return shard
    return None


def is_readable(path: str) -> bool:
    """Whether a file in a folder is read: an image, a tar, a Parquet or an Arrow file."""
    name = posixpath.basename(path.replace(os.sep, "/")).lower()
    if name.startswith("cache-") and name.endswith(".arrow"):  # left by `datasets`
        return False
    return is_container(name) or posixpath.splitext(name)[1] in image_suffixes()


def is_container(name: str) -> bool:
    """Whether a file's name is that of a tar, Parquet or Arrow file."""
    return name.lower().endswith(_TARS + _TABLES)


def grouped(paths: Iterator[str], column: str | None, fs: Any = None) -> Iterator[Shard]:
    """Image files in shards of some thousand, each tar, Parquet or Arrow file as its own."""
    for is_shard, group in itertools.groupby(paths, is_container):
        if is_shard:
            for path in group:
                shard = container(path, column, fs)
                assert shard is not None
                yield shard
        else:
            yield from (Files(each, fs) for each in batched(group, LISTED))


def _below(folder: Path) -> Iterator[str]:
    """What can be read, at any depth, sorted folder by folder; no link to a folder is followed."""
    for entry in visible(folder):
        if os.path.isdir(entry):
            if not entry.is_symlink():  # it may lead back up
                yield from _below(entry)
        elif is_readable(str(entry)):
            yield str(entry)


def csv_shards(table: str, fs: Any = None) -> Iterator[Shard]:
    """The images that a CSV names, in shards of some thousand rows."""
    rows = csv_rows(table, ("image_path",), fs, optional=("label",))
    cells = ((row["image_path"], chosen(row["label"]) or None) for _, row in rows)
    yield from (Cells(table, each, fs) for each in batched(cells, LISTED))


def batched(items: Iterator[T], n: int) -> Iterator[tuple[T, ...]]:
    """Tuples of `n` items, the last one shorter."""
    while batch := tuple(itertools.islice(items, n)):
        yield batch
