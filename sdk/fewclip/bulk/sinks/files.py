"""Rows into files of this machine: whole parts, joined at the end. No URL here.

A part is never half there: it is written under another name, synced and renamed. For FILE.csv and
FILE.jsonl the parts are in FILE.parts/ until they are joined; for a folder they are what the user
gets. FILE.run.json, or _fewclip_run.json in the folder, says which model wrote them, so rows of two
models never mix.

While parts exist and FILE does not, the parts are the truth; once FILE exists, it alone is. That
one rename is the only step that switches between the two.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from fewclip.artifact import sync_path
from fewclip.bulk.row import Csv, Format, JsonLines, Parquet, Row
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
from fewclip.errors import InputError

if sys.platform != "win32":
    import fcntl

_UNFINISHED = ".tmp"


class FileOutput(Output):
    """FILE.csv, FILE.jsonl, or a folder of Parquet parts."""

    def _open(self, out: str, run: dict[str, Any], top_k: int, overwrite: bool) -> None:
        self.path = Path(out)
        self._format = _format(self.path, top_k)
        self._is_folder = isinstance(self._format, Parquet)
        self._parts_folder = self.path if self._is_folder else _beside(self.path, ".parts")
        self._run_file = (
            self.path / RUN_FILE if self._is_folder else _beside(self.path, ".run.json")
        )
        self._check_target()
        try:
            self._run_file.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked_file(self._run_file, self.path)
        except OSError as error:
            raise unwritable(self.path, error.strerror or error) from error
        try:
            self._claim(run, overwrite)
        except BaseException:
            self._lock.close()
            raise

    def _check_target(self) -> None:
        """Refuse what no earlier run wrote: even `overwrite` does not remove that."""
        exists = self.path.exists() if not self._is_folder else _holds_files(self.path)
        if exists and not self._run_file.is_file():
            raise foreign(self.path)

    def _claim(self, run: dict[str, Any], overwrite: bool) -> None:
        """Continue what an equal run left, or start from nothing."""
        self._lock.seek(0)
        text = self._lock.read()
        if overwrite or not text:
            self._remove_rows()
        elif json.loads(text) != run:
            raise other_run(self.path, json.loads(text), run)
        if overwrite or not text:
            self._lock.truncate(0)
            self._lock.write(json.dumps(run, indent=1) + "\n")
            _sync(self._lock)
        if self._joined():
            shutil.rmtree(self._parts_folder, ignore_errors=True)
        for leftover in self._parts_folder.glob(f"*{_UNFINISHED}"):
            leftover.unlink()

    # ---- what is done ------------------------------------------------------------------------

    def images(self) -> Iterator[str]:
        files = [self.path] if self._joined() else self._part_files()
        for file in files:
            yield from self._format.images(file)

    # ---- rows in -----------------------------------------------------------------------------

    def _write_part(self, rows: Sequence[Row]) -> None:
        try:
            self._add_part(rows)
        except OSError as error:
            raise unwritable(self.path, error.strerror or error) from error

    def _add_part(self, rows: Sequence[Row]) -> None:
        self._parts_folder.mkdir(exist_ok=True)
        if self._joined():  # a finished file grows: it becomes the first part again
            os.rename(self.path, self._part(0))
        number = next_part([file.name for file in self._part_files()])
        with self._whole(self._part(number)) as file:
            self._format.write(file, rows)

    def _finish(self) -> None:
        if isinstance(self._format, Parquet) or self._joined():
            return
        parts = self._part_files()
        try:
            with self._whole(self.path) as file:
                if parts:
                    self._format.joined(parts, file)
                else:  # a source without a single image
                    self._format.write(file, [])
            shutil.rmtree(self._parts_folder, ignore_errors=True)
        except OSError as error:
            raise unwritable(self.path, error.strerror or error) from error

    def _close(self) -> None:
        self._lock.close()

    # ---- files -------------------------------------------------------------------------------

    def _joined(self) -> bool:
        return not self._is_folder and self.path.is_file()

    def _part(self, number: int) -> Path:
        return self._parts_folder / part_name(number, self._format.suffix)

    def _part_files(self) -> list[Path]:
        return sorted(self._parts_folder.glob(f"part-*{self._format.suffix}"))

    def _remove_rows(self) -> None:
        if self._is_folder:
            for file in self._part_files():
                file.unlink()
        else:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(self._parts_folder, ignore_errors=True)

    @contextlib.contextmanager
    def _whole(self, path: Path) -> Iterator[IO[bytes]]:
        """A file that gets its name only when all of it is on disk."""
        temporary = path.with_name(path.name + _UNFINISHED)
        with open(temporary, "wb") as file:
            yield file
            _sync(file)
        os.replace(temporary, path)
        sync_path(path.parent)


def _format(path: Path, top_k: int) -> Format:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return Csv(top_k)
    if suffix in (".jsonl", ".ndjson"):
        return JsonLines()
    if suffix and not path.is_dir():
        raise InputError(
            f"--out {path}: rows are written to FILE.csv, FILE.jsonl or a folder of Parquet parts "
            f"(a name without an extension), not to {suffix}"
        )
    return Parquet()


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _holds_files(folder: Path) -> bool:
    return folder.is_file() or (folder.is_dir() and any(folder.iterdir()))


def _locked_file(path: Path, out: Path) -> IO[str]:
    """Open the file, created if missing, and lock it for this process until it ends."""
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (held for the run)
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise in_use(out) from error
    return file


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
