"""Where rows go: whole parts, joined at the end. Killed at any moment, nothing is half-written.

`Output` collects rows and writes them in parts. A part appears whole: it is written under another
name, synced to disk and renamed. For FILE.csv and FILE.jsonl the parts are in FILE.parts/ until
they are joined; for a folder they are what the user gets. FILE.run.json, or _fewclip_run.json
in the folder, says which model wrote them, so that rows of two models never mix.

While parts exist and FILE does not, the parts are the truth; once FILE exists it alone is. That
one rename is the only step in which this changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fewclip.bulk.row import Csv, Format, JsonLines, Parquet, Row
from fewclip.bulk.sources import is_url
from fewclip.errors import InputError

if sys.platform != "win32":
    import fcntl

PART_ROWS = 50_000
PART_SECONDS = 30.0  # what a kill -9 costs at most
_RUN_FILE = "_fewclip_run.json"  # readers of a folder of Parquet files pass over '_'
_UNFINISHED = ".tmp"


class Output:
    """The rows of one run on disk. Use it as a context; leaving it writes what is collected.

    Args:
        out: FILE.csv, FILE.jsonl, or a folder for Parquet parts.
        run: what the rows depend on, as plain JSON: equal runs may be continued.
        top_k: classes per row.
        overwrite: remove what an earlier run wrote there.

    Raises:
        InputError: something else is there, another run wrote it, or is writing it now.
        MissingExtraError: Parquet without pyarrow.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        run: Mapping[str, Any],
        top_k: int,
        *,
        overwrite: bool = False,
        part_rows: int = PART_ROWS,
        part_seconds: float = PART_SECONDS,
    ) -> None:
        if is_url(out):
            raise InputError(
                f"--out {out}: rows are written on this machine, where a part can appear whole; "
                "name a path here, and copy the folder when it is done"
            )
        self.path = Path(out)
        self._format = _format(self.path, top_k)
        self._is_folder = isinstance(self._format, Parquet)
        self._parts = self.path if self._is_folder else _beside(self.path, ".parts")
        self._run_file = (
            self.path / _RUN_FILE if self._is_folder else _beside(self.path, ".run.json")
        )
        self._part_rows, self._part_seconds = part_rows, part_seconds
        self._rows: list[Row] = []
        self._begun = time.monotonic()
        self._check_target()
        try:
            self._run_file.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked_file(self._run_file, self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        try:
            self._claim(dict(run), overwrite)
        except BaseException:
            self._lock.close()
            raise
        self._next = len(self._part_files())

    def _check_target(self) -> None:
        """Refuse what no earlier run wrote; `overwrite` removes nothing else either."""
        exists = self.path.exists() if not self._is_folder else _holds_files(self.path)
        if exists and not self._run_file.is_file():
            raise InputError(
                f"{self.path} exists and was not written by `fewclip predict --out`; it is never "
                "overwritten, so name another --out"
            )

    def _claim(self, run: dict[str, Any], overwrite: bool) -> None:
        """Take over what an equal run left, or begin."""
        self._lock.seek(0)
        text = self._lock.read()
        if overwrite or not text:
            self._remove_rows()
        elif json.loads(text) != run:
            raise InputError(
                f"{self.path} holds rows of another run ({_differences(json.loads(text), run)}); "
                "name another --out, or replace it with --overwrite"
            )
        if overwrite or not text:
            self._lock.truncate(0)
            self._lock.write(json.dumps(run, indent=1) + "\n")
            _sync(self._lock)
        if self._joined():
            shutil.rmtree(self._parts, ignore_errors=True)
        for leftover in self._parts.glob(f"*{_UNFINISHED}"):
            leftover.unlink()

    # ---- what is done ------------------------------------------------------------------------

    def images(self) -> Iterator[str]:
        """The images that have a row on disk, in the order of the rows."""
        files = [self.path] if self._joined() else self._part_files()
        for file in files:
            yield from self._format.images(file)

    # ---- rows in -----------------------------------------------------------------------------

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Keep what is collected, also after Ctrl-C; without an error, finish."""
        try:
            self._flush()
            if kind is None:
                self._finish()
        finally:
            self._lock.close()

    def add(self, row: Row) -> None:
        """Take one row; it is on disk within `part_rows` rows or `part_seconds`."""
        self._rows.append(row)
        late = time.monotonic() - self._begun >= self._part_seconds
        if len(self._rows) >= self._part_rows or late:
            self._flush()

    def _flush(self) -> None:
        # Let go first: Ctrl-C may come in between, and a row lost is done again, one kept twice is
        # there twice.
        rows, self._rows = self._rows, []
        if rows:
            try:
                self._write_part(rows)
            except OSError as error:
                raise _unwritable(self.path, error) from error
        self._begun = time.monotonic()

    def _write_part(self, rows: Sequence[Row]) -> None:
        self._parts.mkdir(exist_ok=True)
        if self._joined():  # a finished file grows: it becomes the first part again
            os.rename(self.path, self._part(0))
            self._next = 1
        with self._whole(self._part(self._next)) as file:
            self._format.write(file, rows)
        self._next += 1

    def _finish(self) -> None:
        if isinstance(self._format, Parquet) or self._joined():
            return
        parts = self._part_files()
        try:
            with self._whole(self.path) as file:
                if parts:
                    self._format.joined(parts, file)
                else:  # a source without one image
                    self._format.write(file, [])
            shutil.rmtree(self._parts, ignore_errors=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    # ---- files -------------------------------------------------------------------------------

    def _joined(self) -> bool:
        return not self._is_folder and self.path.is_file()

    def _part(self, number: int) -> Path:
        return self._parts / f"part-{number:06d}{self._format.suffix}"

    def _part_files(self) -> list[Path]:
        return sorted(self._parts.glob(f"part-*{self._format.suffix}"))

    def _remove_rows(self) -> None:
        if self._is_folder:
            for file in self._part_files():
                file.unlink()
        else:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(self._parts, ignore_errors=True)

    @contextlib.contextmanager
    def _whole(self, path: Path) -> Iterator[IO[bytes]]:
        """A file that appears under its name when all of it is on disk."""
        temporary = path.with_name(path.name + _UNFINISHED)
        with open(temporary, "wb") as file:
            yield file
            _sync(file)
        os.replace(temporary, path)
        _sync_folder(path.parent)


def _format(path: Path, top_k: int) -> Format:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return Csv(top_k)
    if suffix in (".jsonl", ".ndjson"):
        return JsonLines()
    if suffix and not path.is_dir():
        raise InputError(
            f"--out {path}: rows are written to FILE.csv, FILE.jsonl or a folder of Parquet parts "
            f"(a name without an ending), not to {suffix}"
        )
    return Parquet()


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _holds_files(folder: Path) -> bool:
    return folder.is_file() or (folder.is_dir() and any(folder.iterdir()))


def _locked_file(path: Path, out: Path) -> IO[str]:
    """The file, made where it is missing, held by this process until it ends."""
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (held for the run)
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise InputError(
                f"{out} is being written by another process; wait for it, or name another --out"
            ) from error
    return file


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key} {before.get(key)} there, {now.get(key)} now" for key in keys)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":  # there a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {error.strerror or error}; rows so far are kept")
