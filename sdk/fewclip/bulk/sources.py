"""What to predict -> shards of records, found lazily. It decodes no image and never lists all.

A source is named by the caller: a file or folder, or the URL of one. A shard is some files of a
folder, some rows of a CSV, one tar, or one Parquet or Arrow file. The order is the same in every
run over the same data, which resuming relies on.
"""

from __future__ import annotations

import itertools
import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fewclip.bulk import urls
from fewclip.bulk.records import Cells, Files, Shard, is_url
from fewclip.bulk.tables import TableShard
from fewclip.bulk.tar_shards import TarShard
from fewclip.data.csv_file import csv_rows, is_csv
from fewclip.data.label_tools import chosen
from fewclip.data.paths import existing, visible
from fewclip.errors import DataError
from fewclip.images import image_suffixes, readable

T = TypeVar("T")

LISTED = 1000  # files of a folder or rows of a CSV in one shard
_TARS = (".tar", ".tar.gz", ".tgz")
_TABLES = (".parquet", ".arrow")


def shards(
    sources: Sequence[str | os.PathLike[str]], *, column: str | None = None
) -> Iterator[Shard]:
    """All shards of all sources, in order.

    Args:
        sources: image files, folders (images, tar shards, Parquet and Arrow files at any depth),
            CSVs, .tar, .parquet and .arrow files, folders of `datasets.save_to_disk`; or the URL
            of any of these, or of a pattern ("s3://bucket/shards/*.tar").
        column: the column of a table with images or paths; None for the first of
            `tables.IMAGE_COLUMNS`.

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


def _source(source: str | os.PathLike[str], column: str | None) -> Iterator[Shard]:
    if is_url(source):
        for url in urls.expanded(os.fspath(source)):
            with urls.reported(url):
                fs, path = urls.file_system(url, f"reading {url}")
                yield from _shards(path, urls.files_in(url, fs, path), column, fs)
    else:
        path = str(existing(source))
        yield from _shards(path, _below(Path(path)) if os.path.isdir(path) else None, column)


def _shards(
    path: str, files: Iterator[str] | None, column: str | None, fs: Any = None
) -> Iterator[Shard]:
    """The shards of a folder or pattern that holds `files`; of the file `path` if that is None."""
    if files is not None:
        yield from _grouped(filter(is_readable, files), column, fs)
    elif is_csv(Path(path)):
        yield from _csv_shards(path, fs)
    else:
        yield _container(path, column, fs) or Files((path,), fs)


def _container(path: str, column: str | None, fs: Any) -> Shard | None:
    """A tar, Parquet or Arrow file as a shard; None for any other file."""
    name = path.lower()
    if name.endswith(_TARS):
        return TarShard(path, fs)
    if name.endswith(_TABLES):
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
    """Whether a name is that of a tar, Parquet or Arrow file."""
    return name.lower().endswith(_TARS + _TABLES)


def _grouped(paths: Iterator[str], column: str | None, fs: Any) -> Iterator[Shard]:
    """Image files in shards of up to `LISTED`; each tar, Parquet or Arrow file is its own shard."""
    for is_shard, group in itertools.groupby(paths, is_container):
        if is_shard:
            for path in group:
                shard = _container(path, column, fs)
                assert shard is not None
                yield shard
        else:
            yield from (Files(each, fs) for each in _batched(group, LISTED))


def _below(folder: Path) -> Iterator[str]:
    """The files at any depth, sorted folder by folder; links to folders are not followed."""
    for entry in visible(folder):
        if os.path.isdir(entry):
            if not entry.is_symlink():  # it may lead back up
                yield from _below(entry)
        else:
            yield str(entry)


def _csv_shards(table: str, fs: Any) -> Iterator[Shard]:
    """The images that a CSV names, in shards of up to `LISTED` rows."""
    rows = csv_rows(table, ("image_path",), fs, optional=("label",))
    cells = ((row["image_path"], chosen(row["label"]) or None) for _, row in rows)
    yield from (Cells(table, each, fs) for each in _batched(cells, LISTED))


def _batched(items: Iterator[T], n: int) -> Iterator[tuple[T, ...]]:
    """Tuples of `n` items, the last one shorter."""
    while batch := tuple(itertools.islice(items, n)):
        yield batch
