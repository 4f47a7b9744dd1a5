"""The SDK's lines about a run become the stages of a job. It runs nothing itself."""

from __future__ import annotations

import re

from fewclip_app.work.job_queue import Job

_BUDGET = re.compile(r"; \d+ s left$")  # the page counts down by itself
_BEST = "; best so far: "
_TRIED = re.compile(r"(.+): ([\d.]+%) right out of fold$")
_CHOSEN = "chosen: "
_CHOOSING = "Choosing what suits your photos"


class Stages:
    """What `Callbacks.report_progress` is called with, shown by a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._right: dict[str, str] = {}  # of each method that was tried

    def choose_within(self, seconds: float) -> None:
        """Begin an automatic choice, which may take this long."""
        self._job.begin(_CHOOSING, within=seconds)

    def report(self, line: str) -> None:
        """Turn one line of the SDK into the job's stage.

        Raises:
            StoppedError: the person has asked to stop.
        """
        line, _, best = _BUDGET.sub("", line).partition(_BEST)
        self._job.best = best or self._job.best
        if tried := _TRIED.match(line):
            self._right[tried[1]] = tried[2]
            self._job.begin(_CHOOSING)
        elif line.startswith(_CHOSEN):
            name = line.removeprefix(_CHOSEN)
            right = f", {self._right[name]} right" if name in self._right else ""
            self._job.best = name + right
            self._job.begin(f"Chosen: {name}", within=0)
        else:
            self._job.begin(line[:1].upper() + line[1:])
