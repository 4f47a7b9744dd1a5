"""Rows into object storage: a folder of Parquet parts behind a URL, through fsspec. No local file.

A part is put as one object, which is there whole or not at all, and its name must be new. Two runs
that write to one folder continue at the same part number, so the second one to put it stops.
"""

from __future__ import annotations

import contextlib
import io
import json
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from fewclip.bulk.row import Parquet, Row
from fewclip.bulk.sinks.output import (
    RUN_FILE,
    Output,
    foreign,
    in_use,
    next_part,
    other_run,
    part_name,
    unwritable,
)
from fewclip.bulk.urls import file_system
from fewclip.errors import FewclipError, InputError

# Stores where a put is all or nothing; a file system may show half a file.
STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})


class ObjectOutput(Output):
    """A folder of Parquet parts in object storage."""

    def _open(self, out: str, run: dict[str, Any], top_k: int, overwrite: bool) -> None:
        self._url = out.rstrip("/")
        _check(self._url)
        self._format = Parquet()
        self._fs, self._root = file_system(self._url, f"writing {self._url}")
        with self._reported():
            self._fs.invalidate_cache()  # listings cached by an earlier run in this process
            self._claim(run, overwrite)

    def _claim(self, run: dict[str, Any], overwrite: bool) -> None:
        names = self._names()
        if names and RUN_FILE not in names:
            raise foreign(self._url)
        if names and not overwrite:
            before = json.loads(self._fs.cat_file(self._path(RUN_FILE)))
            if before != run:
                raise other_run(self._url, before, run)
        suffix = self._format.suffix
        self._parts = sorted(n for n in names if n.startswith("part-") and n.endswith(suffix))
        if names and overwrite:
            for name in [*self._parts, RUN_FILE]:  # last, the file that says whose they are
                self._fs.rm_file(self._path(name))
            self._parts = []
        if overwrite or not names:
            self._put(RUN_FILE, json.dumps(run, indent=1).encode() + b"\n")

    def images(self) -> Iterator[str]:
        for name in list(self._parts):
            with self._reported(), self._fs.open(self._path(name), "rb") as file:
                yield from self._format.images(file)

    def _write_part(self, rows: Sequence[Row]) -> None:
        content = io.BytesIO()
        self._format.write(content, rows)
        name = part_name(next_part(self._parts), self._format.suffix)
        with self._reported():
            self._put(name, content.getvalue())
        self._parts.append(name)

    def _finish(self) -> None:
        """Nothing to do: the parts are what the user gets."""

    def _close(self) -> None:
        """Nothing to release."""

    # ---- objects -----------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _names(self) -> list[str]:
        """The names of the objects in the folder."""
        try:
            entries = self._fs.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        paths = (str(entry).rstrip("/") for entry in entries)
        return [posixpath.basename(path) for path in paths if path != self._root.rstrip("/")]

    def _put(self, name: str, content: bytes) -> None:
        """Put a new object.

        Raises:
            InputError: the object exists, with other content.
        """
        path = self._path(name)
        try:
            self._fs.pipe_file(path, content, mode="create")
        except FileExistsError as error:
            # The client repeats a put whose response was lost, and then finds its own object.
            if self._fs.cat_file(path) != content:
                raise in_use(self._url) from error

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except FewclipError:
            raise
        except Exception as error:  # each file system has exceptions of its own
            raise unwritable(self._url, f"{type(error).__name__}: {error}") from error


def _check(url: str) -> None:
    scheme = url.partition("://")[0].lower()
    if scheme not in STORES:
        raise InputError(
            f"--out {url}: rows are written on this machine, or in object storage "
            f"({', '.join(sorted(STORES))}), where a part appears whole; name a path here, and "
            "copy the folder when it is done"
        )
    if posixpath.splitext(url)[1]:
        raise InputError(
            f"--out {url}: in object storage rows are a folder of Parquet parts; name one without "
            "an ending, or FILE.csv or FILE.jsonl on this machine"
        )
