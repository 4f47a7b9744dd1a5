"""What is behind URLs that the caller named, through fsspec. Nothing here reads a URL from a file.

`s3://`, `gs://`, `hf://` and whatever else fsspec knows; the file system's own package (s3fs, gcsfs
...) has to be installed. `http://` and `https://` name single files: a listing there is an HTML
page, and its links are URLs from inside a file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

from fewclip.bulk.sources import Files, Shard, container, csv_shards, grouped, is_readable
from fewclip.errors import DataError, MissingExtraError
from fewclip.system.extras import require

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def url_shards(url: str, column: str | None) -> Iterator[Shard]:
    """The shards of one URL: a file, a folder, a pattern, or {000..127} as in WebDataset.

    Raises:
        DataError: nothing is there, or it cannot be reached.
        MissingExtraError: fsspec or the file system's package is missing.
    """
    for each in _expanded(url):
        try:
            yield from _one(each, column)
        except (DataError, MissingExtraError):
            raise
        except Exception as error:  # each file system has exceptions of its own
            raise DataError(
                f"{each} cannot be reached ({type(error).__name__}: {error}); check the address "
                "and the credentials of its file system"
            ) from error


def _expanded(url: str) -> Iterator[str]:
    found = _BRACES.search(url)
    if found is None:
        yield url
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expanded(f"{url[: found.start()]}{number:0{len(first)}d}{url[found.end() :]}")


def _one(url: str, column: str | None) -> Iterator[Shard]:
    fs, path = file_system(url, f"reading {url}")
    is_web = url.lower().startswith(("http://", "https://"))
    if path.lower().endswith((".csv", ".tsv")):
        yield from csv_shards(path, fs)
    elif is_web:
        yield _file(fs, path, column)
    elif any(c in path for c in "*?["):
        yield from grouped(iter(sorted(filter(is_readable, fs.glob(path)))), column, fs)
    elif fs.isdir(path):
        yield from grouped(_below(fs, path), column, fs)
    elif fs.exists(path):
        yield _file(fs, path, column)
    else:
        raise DataError(f"{url} is not there; check the address")


def _file(fs: Any, path: str, column: str | None) -> Shard:
    return container(path, column, fs) or Files((path,), fs)


def file_system(url: str, what: str) -> tuple[Any, str]:
    """The file system of a URL, and the path on it.

    Args:
        what: is being done, for the message where fsspec is missing.

    Raises:
        DataError: no such file system, or its package is missing.
        MissingExtraError: fsspec is missing.
    """
    fsspec = require("fsspec", what, "scale")
    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        raise DataError(f"{url}: {error}") from error
    except ValueError as error:
        raise DataError(f"{url} cannot be opened: {error}") from error


def _below(fs: Any, folder: str) -> Iterator[str]:
    """What can be read at any depth, folder by folder, each sorted, without hidden files."""
    entries = sorted(fs.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
    for entry in entries:
        path = str(entry["name"]).rstrip("/")
        if path == folder.rstrip("/") or posixpath.basename(path).startswith("."):
            continue
        if entry["type"] == "directory":
            yield from _below(fs, path)
        elif is_readable(path):
            yield path
