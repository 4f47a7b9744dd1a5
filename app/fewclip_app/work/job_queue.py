"""Training that outlives a click: a queue of jobs, each with a place, a state and a way to stop it.

Not Gradio's own queue: there a waiting job can't be cancelled, and its place is lost by a reload.
"""

from __future__ import annotations

import gc
import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from fewclip.errors import FewclipError, StoppedError

if TYPE_CHECKING:
    from fewclip.training.loop import Progress

log = logging.getLogger("fewclip_app")

State = Literal["waiting", "running", "done", "stopped", "failed"]


class Job:
    """One training. Its fields are written by its worker and read by any number of pages.

    Attributes:
        id: unique.
        state: how far it is.
        stage: what it is doing now, for people.
        share: of the stage's work, 0..1, where it is known.
        best: of an automatic choice, the best so far, for people.
        begun: when it began, by time.monotonic(); 0 while it waits.
        progress: of the training, once it runs.
        losses: mean loss of each epoch so far.
        error: for people, when it failed.
    """

    def __init__(self, work: Callable[[Job], None]) -> None:
        self._work = work
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.id = secrets.token_hex(8)
        self.state: State = "waiting"
        self.stage = "Waiting for a free place"
        self.share: float | None = None
        self.best = ""
        self.begun = 0.0
        self._stage_begun = 0.0
        self._deadline: float | None = None
        self.progress: Progress | None = None
        self.losses: dict[int, float] = {}
        self.error = ""

    @property
    def finished(self) -> bool:
        return self.state in ("done", "stopped", "failed")

    def stop(self) -> None:
        """Request the end: immediate while it waits, within a step while it trains."""
        with self._lock:
            self._stop.set()
            if self.state == "waiting":
                self.state = "stopped"

    def stopping(self) -> bool:
        return self._stop.is_set()

    def report_progress(self, at: Progress) -> None:
        """The trainer's callback."""
        self.losses[at.epoch] = at.loss
        self.progress = at

    def begin(self, stage: str, share: float | None = None, *, within: float | None = None) -> None:
        """Begin a stage or continue it, with `share` of it done where that is known.

        Args:
            within: seconds that this stage and those that follow it may take together, until a
                stage is begun with another limit; 0 for none.

        Raises:
            StoppedError: the person has asked to stop.
        """
        if stage != self.stage:
            self._stage_begun = time.monotonic()
        if within is not None:
            self._deadline = time.monotonic() + within if within else None
        self.stage, self.share = stage, share
        if self.stopping():
            raise StoppedError("stopped")

    def seconds_left(self) -> tuple[float, bool] | None:
        """(seconds left in the stage, whether that is an upper limit); None if unknown."""
        now = time.monotonic()
        if self._deadline is not None:
            return max(self._deadline - now, 0.0), True
        if self.share:
            return (now - self._stage_begun) * (1 - self.share) / self.share, False
        return None

    def run(self) -> None:
        """Do the work in this thread; nothing is raised, the fields hold the outcome."""
        with self._lock:
            if self.state != "waiting":
                return
            self.state = "running"
            self.begun = time.monotonic()
        try:
            self._work(self)
            self.state = "done"
        except StoppedError:
            self.state = "stopped"
        except Exception as error:
            self.error = user_message(error)
            self.state = "failed"
        finally:
            _free_memory()


class JobQueue:
    """Runs jobs in order, `places` at a time."""

    def __init__(self, places: int) -> None:
        self._pool = ThreadPoolExecutor(places, thread_name_prefix="fewclip-training")
        self._places = places
        self._jobs: list[Job] = []
        self._lock = threading.Lock()

    def submit(self, work: Callable[[Job], None]) -> Job:
        """Queue `work`, which is called with its own job."""
        job = Job(work)
        with self._lock:
            self._jobs = [known for known in self._jobs if not known.finished] + [job]
        self._pool.submit(job.run)
        return job

    def ahead(self, job: Job) -> int:
        """How many jobs have to end before a waiting one begins; 0 if it is running."""
        with self._lock:
            active = [known for known in self._jobs if not known.finished]
        if job.state != "waiting" or job not in active:
            return 0
        return max(1, active.index(job) - self._places + 1)

    def someone_waits(self) -> bool:
        """Whether a job waits for a place."""
        with self._lock:
            return any(job.state == "waiting" for job in self._jobs)

    def close(self) -> None:
        """Stop everything and wait for it."""
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            job.stop()
        self._pool.shutdown()


def user_message(error: Exception) -> str:
    """An error for people; if it isn't about input, it is logged and only its number is shown."""
    if isinstance(error, FewclipError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "the machine ran out of memory; use fewer or smaller images, or a smaller backbone"
    number = secrets.token_hex(4)
    log.error("unexpected error %s", number, exc_info=error)
    return (
        "something went wrong on the server, not because of your images; try again, and if it "
        f"happens again tell whoever runs this page (the log has it under {number})"
    )


def _free_memory() -> None:
    """Release a stopped training's memory now, not when the next one needs it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
