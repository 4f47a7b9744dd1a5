"""The queue of trainings: places, stopping, and errors in words."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from fewclip.errors import DataError, StoppedError
from fewclip_app.ui.steps.step_adapt import draw_job
from fewclip_app.work.job_queue import Job, JobQueue, user_message
from fewclip_app.work.stages import Stages

PATIENCE = 30.0


@pytest.fixture
def jobs() -> Iterator[JobQueue]:
    jobs = JobQueue(1)
    yield jobs
    jobs.close()


def until(condition: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it did not happen")


def training(job: Job) -> None:
    """A trainer in small: it asks before every step."""
    while not job.stopping():
        threading.Event().wait(0.005)
    raise StoppedError("stopped")


def test_a_second_job_waits_with_its_place_and_begins_by_itself(jobs: JobQueue) -> None:
    first, second, third = (jobs.submit(training) for _ in range(3))
    until(lambda: first.state == "running")
    assert [jobs.ahead(job) for job in (first, second, third)] == [0, 1, 2]
    first.stop()
    until(lambda: second.state == "running")
    assert first.state == "stopped"
    assert [jobs.ahead(job) for job in (second, third)] == [0, 1]


def test_two_places_run_two_jobs() -> None:
    queue = JobQueue(2)
    jobs = [queue.submit(training) for _ in range(4)]
    until(lambda: [job.state for job in jobs[:2]] == ["running"] * 2)
    assert [queue.ahead(job) for job in jobs] == [0, 0, 1, 2]
    queue.close()
    assert [job.state for job in jobs] == ["stopped"] * 4


def test_a_waiting_job_is_stopped_at_once_and_never_runs(jobs: JobQueue) -> None:
    ran = []
    first = jobs.submit(training)
    second = jobs.submit(lambda job: ran.append(job))
    second.stop()
    assert second.state == "stopped"
    third = jobs.submit(lambda job: None)
    until(lambda: first.state == "running")
    assert jobs.ahead(third) == 1
    first.stop()
    until(lambda: third.finished)
    assert not ran


def test_an_error_of_the_input_is_told_as_it_is(jobs: JobQueue) -> None:
    def work(job: Job) -> None:
        raise DataError("only one class; add another")

    job = jobs.submit(work)
    until(lambda: job.finished)
    assert (job.state, job.error) == ("failed", "only one class; add another")


def test_an_error_of_ours_is_logged_and_shown_as_a_number(
    jobs: JobQueue, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="fewclip_app"):
        text = user_message(RuntimeError("secret /path/on/the/server"))
    number = text.rsplit(" ", 1)[1].rstrip(")")
    assert "secret" not in text
    assert "server" in text
    assert number in caplog.text
    assert "secret" in caplog.text


def test_a_full_memory_says_what_to_do() -> None:
    assert "fewer or smaller images" in user_message(RuntimeError("CUDA out of memory. Tried ..."))


def test_a_stop_between_two_stages_ends_the_job(jobs: JobQueue) -> None:
    reached = threading.Event()
    go = threading.Event()

    def work(job: Job) -> None:
        job.begin("one")
        reached.set()
        go.wait(PATIENCE)
        job.begin("two")
        raise AssertionError("not reached")

    job = jobs.submit(work)
    reached.wait(PATIENCE)
    job.stop()
    go.set()
    until(lambda: job.finished)
    assert job.state == "stopped"
    assert job.stage == "two"


def test_the_lines_of_an_automatic_choice_become_stages(jobs: JobQueue) -> None:
    job = Job(training)
    job.state = "running"
    stages = Stages(job)
    stages.choose_within(90)
    stages.report("passing 20 training images")
    assert job.stage == "Passing 20 training images"
    stages.report("trying dept on part 1 of 4; best so far: gda, 75.0% right; 43 s left")
    assert job.stage == "Trying dept on part 1 of 4"
    left = job.seconds_left()
    assert left is not None
    assert 0 < left[0] <= 90
    drawn = draw_job(job, jobs)
    assert "Best so far: gda, 75.0% right" in drawn
    assert "at most 1 min" in drawn
    stages.report("dept: 70.0% right out of fold; best so far: gda, 75.0% right; 40 s left")
    assert job.stage == "Choosing what suits your photos"
    stages.report("chosen: dept")
    assert job.best == "dept, 70.0% right"
    assert job.seconds_left() is None
    assert "at most" not in draw_job(job, jobs)


def test_what_is_left_of_a_stage_follows_from_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("fewclip_app.work.job_queue.time.monotonic", lambda: now[0])
    job = Job(training)
    job.begin("Measuring", 0.0)
    assert job.seconds_left() is None
    now[0] += 10
    job.begin("Measuring", 0.25)
    assert job.seconds_left() == (30.0, False)
    job.begin("Packing")
    assert job.seconds_left() is None
