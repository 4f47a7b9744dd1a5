"""What is behind URLs that the caller named, through fsspec. Nothing here reads a URL from a file.

`s3://`, `gs://`, `hf://` and whatever else fsspec knows; the file system's own package (s3fs, gcsfs
...) has to be installed. `http://` and `https://` name single files: a listing there is an HTML
page, and its links are URLs from inside a file.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from fewclip.errors import DataError, FewclipError
from fewclip.system.extras import require

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expanded(url: str) -> Iterator[str]:
    """The URLs that {000..127} stands for, as in WebDataset."""
    found = _BRACES.search(url)
    if found is None:
        yield url
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from expanded(f"{url[: found.start()]}{number:0{len(first)}d}{url[found.end() :]}")


def file_system(url: str, what: str) -> tuple[Any, str]:
    """The file system of a URL, and the path on it.

    Args:
        what: what is being done, for the message if fsspec is missing.

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


@contextlib.contextmanager
def reported(url: str) -> Iterator[None]:
    """Turns whatever goes wrong at a URL into an error of ours.

    Raises:
        DataError: it cannot be reached.
    """
    try:
        yield
    except FewclipError:
        raise
    except Exception as error:  # each file system has exceptions of its own
        raise DataError(
            f"{url} cannot be reached ({type(error).__name__}: {error}); check the address "
            "and the credentials of its file system"
        ) from error


def files_in(url: str, fs: Any, path: str) -> Iterator[str] | None:
    """The files of a folder or pattern, in order; None if the URL is that of one file.

    Raises:
        DataError: nothing is there.
    """
    if url.lower().startswith(("http://", "https://")):
        return None
    if any(c in path for c in "*?["):
        return iter(sorted(fs.glob(path)))
    if fs.isdir(path):
        return _below(fs, path)
    if fs.exists(path):
        return None
    raise DataError(f"{url} is not there; check the address")


def _below(fs: Any, folder: str) -> Iterator[str]:
    """The files at any depth, sorted folder by folder, without hidden ones."""
    entries = sorted(fs.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
    for entry in entries:
        path = str(entry["name"]).rstrip("/")
        if path == folder.rstrip("/") or posixpath.basename(path).startswith("."):
            continue
        if entry["type"] == "directory":
            yield from _below(fs, path)
        else:
            yield path
