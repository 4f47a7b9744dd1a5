"""What `fewclip check` finds in the uploaded images, before anything is trained on them.

The check runs in a process of its own on one core: the page never waits for it, and it can be
killed when the images change. Nothing here draws.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewclip_app.work.job_queue import Job, JobQueue
from fewclip_app.work.uploads import Photo

if TYPE_CHECKING:
    from fewclip_app.work.workspace import Workspace

SETTLED = 1.0  # seconds without a change before the images are checked
LONGEST = 900.0  # most seconds that a check may take
_POLL = 0.2
_ROW = re.compile(r"row (\d+) \(")  # how the report refers to the CSV's images
_SKIPPED = frozenset({"unreadable", "leak"})  # no upload is unreadable, and test images stay apart
_OF_CLASSES = frozenset({"names", "overlap", "balance"})


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something for the person to look at.

    Attributes:
        kind: of `fewclip.check.issue.KINDS`.
        reason: why, for people; findings about classes have nothing else.
        photo: the image; None for findings about classes.
        other: the image that it is a copy of.
        likelier: name of the class that it more likely shows; "" if unknown.
    """

    kind: str
    reason: str
    photo: Photo | None = None
    other: Photo | None = None
    likelier: str = ""

    @property
    def id(self) -> str:
        """Unique among the findings."""
        photos = [photo.thumb.stem for photo in (self.photo, self.other) if photo]
        return "-".join([self.kind, *photos]) if photos else f"{self.kind}-{self.reason}"


class Review:
    """The findings of one workspace, and the check in progress.

    Attributes:
        findings: of the last check that ended; images may have been removed since.
        kept: ids of the findings that the person has dismissed.
        job: the last check; None before the first one.
    """

    def __init__(self) -> None:
        self.findings: tuple[Finding, ...] = ()
        self.kept: set[str] = set()
        self.job: Job | None = None
        self._images: tuple[Any, ...] = ()

    @property
    def running(self) -> bool:
        return self.job is not None and not self.job.finished

    def stop(self) -> None:
        """Stop the check in progress."""
        if self.job is not None:
            self.job.stop()

    def begin(self, workspace: Workspace, jobs: JobQueue) -> None:
        """Check the images again if they have changed since last time. Returns at once."""
        with workspace.lock:
            names = _labels(workspace)
            images = [
                (photo, names[draft.key]) for draft in workspace.drafts for photo in draft.photos
            ]
            current = tuple((photo.path, label) for photo, label in images)
            if current == self._images:
                return
            self._images = current
            self.stop()
            if len(images) < 2:
                self.findings, self.job = (), None
                return
            table = workspace.store.new_path("check", ".csv")

        def work(job: Job) -> None:
            _wait(job, SETTLED)
            try:
                report = _report(job, images, table, workspace)
            finally:
                table.unlink(missing_ok=True)
            photos, called = [photo for photo, _ in images], set(names.values()) - set(names)
            self.findings = tuple(read_findings(report, photos, called))

        self.job = jobs.submit(work)

    def keep_photo(self, thumb: str) -> None:
        """Dismiss all findings about the image with this thumbnail."""
        about = (each for each in self.findings if each.photo and each.photo.thumb.name == thumb)
        self.kept.update(each.id for each in about)

    def open_findings(self, workspace: Workspace) -> list[Finding]:
        """Findings still to look at: their images are there, and nobody has dismissed them."""
        there = {photo.path for draft in workspace.drafts for photo in draft.photos}
        return [
            each
            for each in self.findings
            if each.id not in self.kept
            and all(photo.path in there for photo in (each.photo, each.other) if photo)
        ]


def read_findings(
    report: Mapping[str, Any], photos: Sequence[Photo], names: Set[str]
) -> list[Finding]:
    """The report of `fewclip check --json` about a CSV of these images, in its order.

    Args:
        names: the labels in it that are class names rather than keys.
    """

    def photo(source: str) -> Photo | None:
        row = _ROW.search(source)
        return photos[int(row[1]) - 2] if row else None  # the first row holds the column names

    found = []
    for issue in report["issues"]:
        kind, own = issue["kind"], photo(issue["source"])
        if kind in _OF_CLASSES and names >= set(issue["source"].split(" / ")):
            found.append(Finding(kind, f"{issue['source']}: {issue['reason']}"))
        elif own is not None and kind not in _SKIPPED:
            likelier = issue["new_label"] if issue["new_label"] in names else ""
            copy = kind in ("duplicate", "conflict")
            other = photo(issue["neighbours"][0]) if copy else None
            found.append(Finding(kind, issue["reason"], own, other, likelier))
    return found


def _labels(workspace: Workspace) -> dict[str, str]:
    """Key of each class -> what the check calls it: its name, or its key while it has no name of
    its own."""
    names = [draft.name for draft in workspace.drafts]
    return {
        draft.key: draft.name if draft.name and names.count(draft.name) == 1 else draft.key
        for draft in workspace.drafts
    }


def _report(
    job: Job, images: Sequence[tuple[Photo, str]], table: Path, workspace: Workspace
) -> dict[str, Any]:
    """Run the check over a CSV of the images.

    Raises:
        StoppedError: the images changed meanwhile.
        RuntimeError: it failed; the log says why.
    """
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image_path", "label"])
        rows.writerows((photo.path.name, label) for photo, label in images)
    argv = ["check", str(table), "--json", "--device", workspace.settings.device]
    argv += ["--backbone", workspace.settings.backbones[0]]
    process = subprocess.Popen(
        [sys.executable, "-m", "fewclip.cli", *argv],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    try:
        out, errors = _outputs(process, job)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"fewclip check ended with {process.returncode}: {errors[-500:]}")
    report: dict[str, Any] = json.loads(out)
    return report


def _outputs(process: subprocess.Popen[str], job: Job) -> tuple[str, str]:
    """A process's stdout and stderr once it ends, unless the job is stopped first."""
    ends = time.monotonic() + LONGEST
    while True:
        try:
            return process.communicate(timeout=_POLL)
        except subprocess.TimeoutExpired:
            job.begin("Looking at the images")
            if time.monotonic() > ends:
                raise


def _wait(job: Job, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        job.begin("Looking at the images")
        time.sleep(_POLL)
