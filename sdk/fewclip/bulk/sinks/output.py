"""What files and object storage share as outputs of a run. It opens neither."""

from __future__ import annotations

import abc
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from fewclip.bulk.row import Row
from fewclip.errors import InputError

PART_ROWS = 50_000
PART_SECONDS = 30.0  # what a kill -9 costs at most
RUN_FILE = "_fewclip_run.json"  # readers of a folder of Parquet files skip names with '_'


class Output(abc.ABC):
    """The rows of one run. A context manager: leaving it writes what is collected.

    Args:
        out: FILE.csv, FILE.jsonl, a folder for Parquet parts, or the URL of one.
        run: what the rows depend on, as plain JSON: equal runs may be continued.
        top_k: classes per row.
        overwrite: remove what an earlier run wrote there.
        part_rows, part_seconds: rows are on disk after at most this many rows or seconds.

    Raises:
        InputError: something else is there, another run wrote it, or is writing it now.
        MissingExtraError: Parquet without pyarrow, a URL without fsspec.
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
        self._part_rows, self._part_seconds = part_rows, part_seconds
        self._rows: list[Row] = []
        self._begun = 0.0  # when the first of them came
        self._open(os.fspath(out), dict(run), top_k, overwrite)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Write what is collected, even after Ctrl-C; finish if there was no error."""
        try:
            self._flush()
            if kind is None:
                self._finish()
        finally:
            self._close()

    def add(self, row: Row) -> None:
        """Take one row; it is on disk within `part_rows` rows or `part_seconds`."""
        now = time.monotonic()
        if not self._rows:
            self._begun = now
        self._rows.append(row)
        late = now - self._begun >= self._part_seconds
        if len(self._rows) >= self._part_rows or late:
            self._flush()

    def _flush(self) -> None:
        # Cleared first: if Ctrl-C comes in between, a lost row is predicted again, but one written
        # twice would stay twice.
        rows, self._rows = self._rows, []
        if rows:
            self._write_part(rows)

    @abc.abstractmethod
    def images(self) -> Iterator[str]:
        """The images that have a row already, in the order of the rows."""

    @abc.abstractmethod
    def _open(self, out: str, run: dict[str, Any], top_k: int, overwrite: bool) -> None:
        """Continue what an equal run left, or start from nothing."""

    @abc.abstractmethod
    def _write_part(self, rows: Sequence[Row]) -> None:
        """One more part, whole or not at all."""

    @abc.abstractmethod
    def _finish(self) -> None:
        """All rows have been written as parts: complete the output."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Release locks and open files."""


def part_name(number: int, suffix: str) -> str:
    """A name by which parts sort in order."""
    return f"part-{number:06d}{suffix}"


def next_part(names: Sequence[str]) -> int:
    """The number after the last of the sorted `names`; a removed part leaves a gap."""
    digits = re.findall(r"\d+", names[-1]) if names else []
    return int(digits[0]) + 1 if digits else len(names)


def foreign(out: object) -> InputError:
    """Something is there that no run wrote."""
    return InputError(
        f"{out} exists and was not written by `fewclip predict --out`; it is never overwritten, "
        "so name another --out"
    )


def other_run(out: object, before: Mapping[str, Any], now: Mapping[str, Any]) -> InputError:
    """Its rows depend on something else."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    differences = ", ".join(f"{key} {before.get(key)} there, {now.get(key)} now" for key in keys)
    return InputError(
        f"{out} holds rows of another run ({differences}); name another --out, or replace it with "
        "--overwrite"
    )


def in_use(out: object) -> InputError:
    """Two runs on one output."""
    return InputError(
        f"{out} is being written by another process; wait for it, or name another --out"
    )


def unwritable(out: object, reason: object) -> InputError:
    """A part could not be kept."""
    return InputError(f"{out} cannot be written: {reason}; rows so far are kept")
