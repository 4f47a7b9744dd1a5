"""Image bytes -> prediction, off the event loop, with a deadline. No HTTP, no fields.

Decoding runs in processes that may be killed (`decode_pool.py`), each awaited by a thread. A
decoded image becomes a job, and jobs go through the model in batches that BentoML assembles. A job
past its deadline is dropped: in the queue it is never computed, and a batch that nobody waits for
any more is stopped inside ONNX Runtime.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
from PIL import Image

from fewclip import decide
from fewclip.contract import Preprocess
from fewclip.decoding.decode_pool import SLOW, DecodePool, is_large
from fewclip.decoding.decode_process import Decoded
from fewclip.errors import ClassNameError, DecoderBusyError, ImageError, ImageTooLargeError
from fewclip.preprocess import Inputs, to_input
from fewclip.runtime import OnnxClassifier
from fewclip_service.http.http_errors import APIError
from fewclip_service.metrics import metrics

T = TypeVar("T")


class Batch:
    """Jobs that are being computed together."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.options = ort.RunOptions()

    def stop_if_abandoned(self) -> None:
        if all(job.abandoned for job in self.jobs):
            self.options.terminate = True


@dataclasses.dataclass(eq=False)
class Job:
    """One image on its way through the model: (3, H, W) float32."""

    classifier: OnnxClassifier
    pixels: Inputs
    top_k: int
    coverage: float | None = None
    abandoned: bool = False
    batch: Batch | None = None

    def abandon(self) -> None:
        """Note that nobody waits for this job any more."""
        self.abandoned = True
        if self.batch is not None:
            self.batch.stop_if_abandoned()


class Engine:
    """Decodes, queues and waits.

    Args:
        dispatch: hands one job to the batching; returns what `run_batch` gave for it.
        threads: images decoded at once.
        max_pixels: limit for one image.
        decode_seconds: until decoding one image is given up.
    """

    def __init__(
        self,
        dispatch: Callable[[Job], Awaitable[decide.Prediction | None]],
        *,
        threads: int,
        max_pixels: int,
        decode_seconds: float,
    ) -> None:
        self._dispatch = dispatch
        self._pool = DecodePool(threads, max_pixels=max_pixels, seconds=decode_seconds)
        # One extra thread for each pool slot that a slow image may have freed. Large images wait
        # in a queue of their own, so that small ones can pass them.
        self._decoders = ThreadPoolExecutor(threads + SLOW, thread_name_prefix="decode")
        self._large_decoders = ThreadPoolExecutor(threads + SLOW, thread_name_prefix="decode-large")
        # Separate from the decoders: a text tower encodes one list at a time, and requests that
        # wait for it must not keep images from being decoded.
        self._namers = ThreadPoolExecutor(1, thread_name_prefix="names")

    def warm_up(self) -> None:
        """Start the processes now, so that the first requests don't pay for it."""
        self._pool.start()

    def close(self) -> None:
        self._pool.close()
        for pool in (self._decoders, self._large_decoders, self._namers):
            pool.shutdown(wait=False, cancel_futures=True)

    async def answer(
        self,
        classifier: OnnxClassifier,
        data: bytes,
        top_k: int,
        coverage: float | None,
        deadline: float,
    ) -> decide.Prediction:
        """The prediction for one encoded image.

        Args:
            deadline: `time.monotonic()` at which waiting ends.

        Raises:
            APIError: not a readable image, too many pixels, out of time, or no time to decode it.
        """
        pixels = await self._pixels(data, classifier.card.preprocessing, deadline)
        job = Job(classifier, pixels, top_k, coverage)
        try:
            prediction = await _within(deadline, asyncio.ensure_future(self._dispatch(job)))
        finally:
            job.abandon()
        if prediction is None:
            raise _timed_out()
        return prediction

    async def name_classes(
        self, classifier: OnnxClassifier, names: list[str], deadline: float
    ) -> OnnxClassifier:
        """The same model over other classes.

        Raises:
            APIError: a name is empty, a duplicate or too long, or time ran out.
        """
        try:
            return await _in(self._namers, deadline, classifier.with_classes, names)
        except ClassNameError as error:
            raise APIError("bad_field", f"classes: {error}") from error

    async def _pixels(self, data: bytes, spec: Preprocess, deadline: float) -> Inputs:
        """(3, H, W) float32; an image that turns out large goes to the end of the other queue."""
        pool = self._pool
        found = None
        if not is_large(data):
            found = await _in(self._decoders, deadline, _decode, pool.decode_small, data, spec)
        if found is None:
            found = await _in(
                self._large_decoders, deadline, _decode, pool.decode_large, data, spec
            )
        assert found is not None
        return found


def _decode(decode: Callable[..., Decoded | None], data: bytes, spec: Preprocess) -> Inputs | None:
    begin = time.monotonic()
    try:
        decoded = decode(data, crop=spec)
    except ImageTooLargeError as error:
        raise APIError("too_large", f"the image: {error}") from error
    except DecoderBusyError as error:
        raise APIError("busy", f"the image: {error}") from error
    except ImageError as error:
        raise APIError("not_an_image", f"the image: {error}") from error
    if decoded is None:
        return None
    assert decoded.crop is not None
    pixels = to_input(Image.fromarray(decoded.crop), spec)
    metrics().decode.observe(time.monotonic() - begin)
    return pixels


def run_batch(jobs: Sequence[Job]) -> list[decide.Prediction | None]:
    """Compute jobs, grouped by classifier and coverage; None for an abandoned one."""
    batch = Batch([job for job in jobs if not job.abandoned])
    for job in batch.jobs:
        job.batch = batch
    batch.stop_if_abandoned()  # one may have been abandoned before it knew its batch
    groups: dict[tuple[int, float | None], list[Job]] = {}
    for job in batch.jobs:
        groups.setdefault((id(job.classifier), job.coverage), []).append(job)
    answers: dict[Job, decide.Prediction] = {}
    for group in groups.values():
        try:
            answers |= zip(group, _run(group, batch.options), strict=True)
        except Exception:
            if not batch.options.terminate:
                raise
    return [answers.get(job) for job in jobs]


def _run(group: Sequence[Job], options: Any) -> list[decide.Prediction]:
    classifier = group[0].classifier
    metrics().batch.observe(len(group))
    with metrics().inference.time():
        pixels = np.stack([job.pixels for job in group])
        found = classifier.model_outputs(pixels, run_options=options)
    predictions = classifier.answer(found, max(job.top_k for job in group), group[0].coverage)
    return [
        dataclasses.replace(prediction, top=prediction.top[: job.top_k])
        for job, prediction in zip(group, predictions, strict=True)
    ]


async def _in(pool: Executor, deadline: float, call: Callable[..., T], *arguments: Any) -> T:
    """Call in a pool; a call that has not begun by the deadline never begins."""
    future = asyncio.get_running_loop().run_in_executor(pool, call, *arguments)
    return await _within(deadline, future)


async def _within(deadline: float, future: asyncio.Future[T]) -> T:
    """Wait until the deadline, then leave the future to itself."""
    done, _ = await asyncio.wait({future}, timeout=max(0.0, deadline - time.monotonic()))
    if done:
        return future.result()
    future.add_done_callback(_forget)
    future.cancel()
    raise _timed_out()


def _forget(future: asyncio.Future[Any]) -> None:
    """Retrieve a late outcome, so that asyncio does not warn that nobody did."""
    if not future.cancelled():
        future.exception()


def _timed_out() -> APIError:
    return APIError("timed_out", "no answer in time; send fewer or smaller images, or try later")
