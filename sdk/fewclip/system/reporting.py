"""Lines for people about a long job. The steps of a training are `training.progress`'s."""

from __future__ import annotations

from collections.abc import Callable

ReportProgress = Callable[[str], None]  # called with a line before, or after, each part of the job


def report_nothing(line: str) -> None:
    """A `ReportProgress` that keeps silent."""
