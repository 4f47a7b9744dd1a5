"""Lines for people about a job that takes long. What happens within a training is not said here."""

from __future__ import annotations

from collections.abc import Callable

ReportProgress = Callable[[str], None]  # called with a line before, or after, each part of the job


def report_nothing(line: str) -> None:
    """A `ReportProgress` that keeps silent."""
