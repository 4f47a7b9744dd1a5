"""Progress of a bulk prediction on stderr: a live line on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from typing import IO

_EVERY = 10.0  # seconds between lines of a log
_REDRAWN = 0.5  # ... and on a terminal


class Reporter:
    """Counts rows and reports progress. `total` may become known while it runs.

    Args:
        done: rows of an earlier run.
        shown: False for silence.
    """

    def __init__(self, done: int = 0, *, shown: bool = True, file: IO[str] | None = None) -> None:
        self.total: int | None = None
        self.rows, self.errors = 0, 0
        self.done, self._shown = done, shown
        self._file = file or sys.stderr
        self._live = self._file.isatty()
        self._begun = self._said = time.monotonic()

    @property
    def rate(self) -> float:
        """Images per second since the start."""
        return self.rows / max(time.monotonic() - self._begun, 1e-9)

    def row(self, *, failed: bool) -> None:
        """One more row."""
        self.rows += 1
        self.errors += failed
        now = time.monotonic()
        if self._shown and now - self._said >= (_REDRAWN if self._live else _EVERY):
            self._said = now
            self._write(self.line())

    def finish(self) -> None:
        """The last line."""
        if self._shown:
            self._write(self.line())
            if self._live:
                self._file.write("\n")

    def line(self) -> str:
        at = self.done + self.rows
        of = "" if self.total is None else f" of {self.total:,}"
        parts = [f"{at:,}{of} images", f"{self.rate:,.1f} images/s"]
        if self.total is not None and self.rows and at < self.total:
            parts.append(f"{_clock((self.total - at) / self.rate)} left")
        if self.errors:
            parts.append(f"{self.errors:,} with an error")
        return ", ".join(parts)

    def _write(self, line: str) -> None:
        self._file.write(f"\r{line}\x1b[K" if self._live else f"{line}\n")
        self._file.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
