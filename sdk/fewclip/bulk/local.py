"""The engine of one machine: records in, rows out, in order and in bounded memory. No files here.

A feeder finds records, a pool decodes them, and the caller's thread runs the model: while one
batch is computed the next ones are decoded. At most `AHEAD` images are in flight at once.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from fewclip.bulk.records import Record
from fewclip.bulk.row import Row
from fewclip.contract import Preprocess
from fewclip.errors import DataError
from fewclip.preprocess import WORKERS, Inputs, load_image, to_input

if TYPE_CHECKING:
    from fewclip.base import BaseClassifier

BATCH = 32
AHEAD = 4 * BATCH

Decoded = tuple[str, Inputs | str]  # the image's name, and its pixels or why there are none


def rows(
    model: BaseClassifier,
    records: Iterable[Record],
    *,
    top_k: int = 5,
    coverage: float | None = None,
    workers: int = WORKERS,
) -> Generator[Row]:
    """One row per record, in order; an image that cannot be read is a row with its error."""
    spec = model.card.preprocessing
    pool = ThreadPoolExecutor(workers, "decode")
    stream = _in_background(pool.submit(decoded, record, spec) for record in records)
    try:
        for batch in _batches(stream, BATCH):
            yield from answered(model, batch, top_k, coverage)
    finally:
        stream.close()
        pool.shutdown(cancel_futures=True)


def decoded(record: Record, spec: Preprocess) -> Decoded:
    """One record -> (3, H, W) float32, or the reason why not."""
    try:
        image = record.load()
        return record.name, to_input(load_image(image, name=record.name), spec)
    except (DataError, OSError) as error:
        return record.name, " ".join(str(error).split())


def answered(
    model: BaseClassifier, batch: Sequence[Decoded], top_k: int, coverage: float | None = None
) -> Iterator[Row]:
    """Rows of one batch, in order."""
    pixels = [inputs for _, inputs in batch if not isinstance(inputs, str)]
    found = iter(model.predict(np.stack(pixels), top_k, coverage) if pixels else ())
    for name, inputs in batch:
        if isinstance(inputs, str):
            yield Row(name, error=inputs)
        else:
            yield Row.answered(name, next(found))


def _batches(stream: Iterator[Future[Decoded]], size: int) -> Iterator[list[Decoded]]:
    batch: list[Decoded] = []
    for future in stream:
        batch.append(future.result())
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _in_background(items: Iterator[Future[Decoded]]) -> Generator[Future[Decoded]]:
    """The same items, taken by a background thread at most `AHEAD` ahead of the caller."""
    waiting: queue.Queue[Future[Decoded] | BaseException | None] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def put(item: Future[Decoded] | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def feed() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # handed on: the caller's thread raises it
            put(error)

    thread = threading.Thread(target=feed, name="find", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
