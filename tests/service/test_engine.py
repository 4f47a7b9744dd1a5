"""Jobs that nobody waits for any more: never computed, or stopped inside ONNX Runtime."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fewclip.contract import ConformalScores
from fewclip.runtime import OnnxClassifier
from fewclip_service.inference.batching import Job, run_batch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def classifier(exported: Path) -> OnnxClassifier:
    return OnnxClassifier(exported)


def pixels(classifier: OnnxClassifier, seed: int) -> np.ndarray:
    size = classifier.card.preprocessing.size
    return np.random.default_rng(seed).normal(size=(3, size, size)).astype(np.float32)


def test_a_batch_answers_each_as_if_alone(classifier: OnnxClassifier) -> None:
    other = classifier.with_classes(["a zebra", "red"])
    jobs = [
        Job(classifier, pixels(classifier, 1), 1),
        Job(other, pixels(classifier, 1), 5),
        Job(classifier, pixels(classifier, 2), 3),
    ]
    for job, answer in zip(jobs, run_batch(jobs), strict=True):
        assert answer is not None
        found = job.classifier.model_outputs(job.pixels[None])
        alone = job.classifier.answer(found, job.top_k)[0]
        assert [entry.label for entry in answer.top] == [entry.label for entry in alone.top]
        assert answer.score == pytest.approx(alone.score, abs=1e-5)


def test_an_abandoned_job_is_not_computed(classifier: OnnxClassifier) -> None:
    jobs = [Job(classifier, pixels(classifier, seed), 1) for seed in range(3)]
    jobs[1].abandon()
    answers = run_batch(jobs)
    assert [answer is None for answer in answers] == [False, True, False]
    assert jobs[1].batch is None


def test_a_batch_that_all_abandoned_is_stopped(classifier: OnnxClassifier) -> None:
    image = pixels(classifier, 0)
    jobs = [Job(classifier, image, 1) for _ in range(1000)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_batch, jobs)
        while jobs[-1].batch is None:
            time.sleep(0.001)
        for job in jobs:
            job.abandon()
        assert running.result() == [None] * len(jobs)
    assert run_batch([Job(classifier, image, 1)])[0] is not None


def test_jobs_that_ask_for_different_coverage_share_a_batch(classifier: OnnxClassifier) -> None:
    n = len(classifier.classes)
    card = dataclasses.replace(
        classifier.card,
        head=dataclasses.replace(classifier.card.head, columns=tuple(range(n))),
        conformal=ConformalScores(kind="split", scores=((0.0, 0.1, 0.5, 0.9),) * n),
    )
    calibrated = classifier._with_card(card)
    asked = (None, 0.5, 0.9)
    jobs = [Job(calibrated, pixels(classifier, 1), 1, coverage) for coverage in asked]
    for job, answer in zip(jobs, run_batch(jobs), strict=True):
        assert answer is not None
        alone = calibrated.predict(job.pixels[None], 1, job.coverage)[0]
        assert answer.prediction_set == alone.prediction_set
    answers = [a.prediction_set for a in run_batch(jobs) if a is not None]
    assert answers[0] is None
    assert answers[1] is not None
