"""Rows of float32 that may be too many for memory. It knows nothing of what they hold."""

from __future__ import annotations

import itertools
import math
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 16 << 20  # bytes; larger arrays are files

Float32s = NDArray[np.float32]
Indices = NDArray[np.int64]


class DiskRows:
    """(n, ...) float32 in a temporary file, read and written by rows.

    Plain reads and writes: pages of a mapped file would count as memory of the process. It is for
    one thread at a time; the file is gone with the object.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._row = 4 * math.prod(shape[1:])  # bytes
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (open as long as self)
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Indices) -> Float32s:
        wanted = self._indices(rows)
        found = np.empty((len(wanted), *self.shape[1:]), np.float32)
        for part, first in _runs(wanted):
            block = found[part].data.cast("B")
            self._file.seek(first * self._row)
            done = 0
            while done < len(block):
                count = self._file.readinto(block[done:])
                if not count:
                    raise EOFError(f"rows from {first} on were never written")
                done += count
        return found

    def __setitem__(self, rows: slice | Indices, values: NDArray[np.floating[Any]]) -> None:
        wanted = self._indices(rows)
        plain = np.ascontiguousarray(values, np.float32)
        assert plain.shape == (len(wanted), *self.shape[1:])
        for part, first in _runs(wanted):
            block = plain[part].data.cast("B")
            self._file.seek(first * self._row)
            done = 0
            while done < len(block):
                done += self._write(block[done:])

    def _write(self, block: memoryview) -> int:
        """
        Raises:
            OSError: the file does not fit; it says where the file is, which has no name.
        """
        try:
            return self._file.write(block)
        except OSError as error:
            room = f"a temporary file of up to {self._row * len(self) / 1e6:.0f} MB"
            reason = f"{error.strerror}, for {room}; TMPDIR can name another folder"
            raise OSError(error.errno, reason, tempfile.gettempdir()) from error

    def _indices(self, rows: slice | Indices) -> Indices:
        return np.arange(len(self))[rows]


AnyRows = Float32s | DiskRows


def new_rows(shape: tuple[int, ...]) -> AnyRows:
    """Rows to be filled: an array, or a file if it would be large."""
    if 4 * math.prod(shape) <= IN_MEMORY:
        return np.empty(shape, np.float32)
    return DiskRows(shape)


def _runs(rows: Indices) -> Iterator[tuple[slice, int]]:
    """Stretches of consecutive rows: where they are in `rows`, and the first of them."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    bounds = [0, *breaks.tolist(), len(rows)]
    for first, end in itertools.pairwise(bounds):
        if end > first:
            yield slice(first, end), int(rows[first])
