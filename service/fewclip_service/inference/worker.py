"""A worker's parts, put together, and one request's way through them. No routes, no JSON."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request

from fewclip import decide
from fewclip.runtime import OnnxClassifier
from fewclip.runtime.probe import probe
from fewclip.system.cores import usable_cores
from fewclip_service.http.http_errors import APIError
from fewclip_service.http.multipart import Form, read_form
from fewclip_service.inference.admission import Admission
from fewclip_service.inference.batching import Engine, Job
from fewclip_service.inference.model_store import Model, Models
from fewclip_service.settings import Settings

_BODIES = 4  # full-size bodies that a worker holds at once


class Worker:
    """What a worker process holds.

    Args:
        dispatch: hands one job to BentoML's batching.
    """

    def __init__(
        self,
        settings: Settings,
        dispatch: Callable[[Job], Awaitable[decide.Prediction | None]],
    ) -> None:
        threads = settings.threads or max(1, usable_cores() // settings.workers)
        self.settings = settings
        self.gate = Admission(images=settings.queue, held=_BODIES * settings.max_body)
        self.engine = Engine(
            dispatch,
            threads=threads,
            max_pixels=settings.max_pixels,
            decode_seconds=settings.decode_seconds,
        )
        self.models = Models(
            Path(settings.model),
            lambda folder: _load(folder, settings.device, threads),
            poll=settings.poll,
        )
        self.engine.warm_up()
        self.models.start()

    def close(self) -> None:
        self.models.stop()
        self.engine.close()

    @contextlib.asynccontextmanager
    async def request(self, request: Request) -> AsyncIterator[Call]:
        """One request from its body to its answer; what it held is released at the end."""
        self.gate.check()
        with self.gate.body() as take:
            yield Call(self, request, take)


class Call:
    """One request in progress. Its time starts when this is created."""

    def __init__(self, core: Worker, request: Request, take: Callable[[int], None]) -> None:
        self._core = core
        self._request = request
        self._take = take
        self._began = time.monotonic()

    async def read(self, *, images: int, bare: bool = False) -> Form:
        """Read the body; the time for an answer restarts once it has arrived.

        Args:
            bare: the body may also be the image itself, with its media type.
        """
        settings = self._core.settings
        form = await read_form(
            self._request,
            image_bytes=settings.max_bytes,
            images=images,
            bare=bare,
            body_bytes=settings.max_body,
            seconds=settings.timeout,
            take=self._take,
        )
        self._began = time.monotonic()
        return form

    async def name_classes(self, model: Model, names: list[str]) -> OnnxClassifier:
        """The model over classes named in the call."""
        return await self._core.engine.name_classes(model.classifier, names, self._deadline)

    async def answer(
        self,
        model: Model,
        classifier: OnnxClassifier,
        image: bytes | APIError,
        top_k: int,
        coverage: float | None = None,
    ) -> dict[str, Any]:
        """The JSON of one answer."""
        if isinstance(image, APIError):
            raise image
        prediction = await self._core.engine.answer(
            classifier, image, top_k, coverage, self._deadline
        )
        ms = round((time.monotonic() - self._began) * 1000, 3)
        return prediction.to_dict() | {"model": model.name, "ms": ms}

    @property
    def _deadline(self) -> float:
        return self._began + self._core.settings.timeout


def _load(folder: Path, device: str, threads: int) -> OnnxClassifier:
    """Open a model and use all of it once: the first request should not pay for that, and the
    text tower, which is opened when first needed, must be this folder's and not its successor's.
    A separate process does so first, so that a bad folder cannot break this worker."""
    probe(folder)
    classifier = OnnxClassifier(folder, device, threads=threads)
    size = classifier.card.preprocessing.size
    classifier.logits(np.zeros((1, 3, size, size), np.float32))
    if classifier.takes_new_classes:
        classifier.text_features(["a first name"])
    return classifier
