"""The SDK's lines about a run become the stages of a job. It runs nothing itself."""

from __future__ import annotations

import re

from fewclip_app.work.job_queue import Job

_BUDGET = re.compile(r"; \d+ s left$")  # the page counts that down by itself
_BEST = "; best so far: "


class Stages:
    """What `execute(report_stage=...)` reports, shown by a job."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def choose_within(self, seconds: float) -> None:
        """An automatic choice begins, which may take so long."""
        self._job.begin("Choosing what suits your photos", within=seconds)

    def report(self, line: str) -> None:
        """One line of the SDK.

        Raises:
            StoppedError: the person asked for the end.
        """
        line, _, best = _BUDGET.sub("", line).partition(_BEST)
        self._job.best = best or self._job.best
        over = line.startswith(("chosen:", "stopped;"))
        self._job.begin(line[:1].upper() + line[1:], within=0 if over else None)
