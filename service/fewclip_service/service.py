"""The BentoML service: what BentoML batches, mounts and starts. Everything else is plain Python.

Importing this module reads the settings from the environment: BentoML imports it in the parent,
which needs the number of workers to start, and again in each worker.
"""

from __future__ import annotations

import os
import time
import types

os.environ["BENTOML_DO_NOT_TRACK"] = (
    "True"  # "1" would be ignored; read once, when it is first used
)

from pathlib import Path
from typing import Any

import bentoml
from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]
from bentoml._internal.marshal import dispatcher
from bentoml.exceptions import ServiceUnavailable
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from fewclip import decide
from fewclip_service import logs
from fewclip_service.connections import limit_connections
from fewclip_service.http.api import PREFIX, create_api
from fewclip_service.http.http_errors import APIError
from fewclip_service.http.middleware import Middleware
from fewclip_service.http.ui import Page
from fewclip_service.inference.batching import Job, run_batch
from fewclip_service.inference.worker import Worker
from fewclip_service.orphan_copies import keep_orphans
from fewclip_service.settings import Settings
from fewclip_service.shutdown import GracefulShutdown

# BentoML's batching measures how long a job waits by the wall clock. When that jumps (the machine
# slept, a time server set it), it would refuse what waits, and keep what comes next waiting.
vars(dispatcher)["time"] = types.SimpleNamespace(time=time.monotonic)

SETTINGS = Settings.read()
limit_connections(SETTINGS.head_timeout, SETTINGS.connections)
keep_orphans()
SHUTDOWN = GracefulShutdown()
PAGE = Page()


class FewclipService(bentoml.Service):  # type: ignore[misc]
    """BentoML's service with our middleware around its app, and its batching within reach."""

    factory: ServiceAppFactory

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        self.inject_config()
        self.factory = ServiceAppFactory(self, is_main=is_main)
        # Ours frees the worker; BentoML's leaves the thread busy and a timer behind per request.
        self.factory.timeout = None
        app: ASGIApp = Middleware(self.factory(), SETTINGS, SHUTDOWN, PAGE if SETTINGS.ui else None)
        if not SETTINGS.origins:
            return app
        return CORSMiddleware(
            app,
            allow_origins=SETTINGS.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )


def _core() -> Worker:
    core = bentoml.get_current_service().core
    assert isinstance(core, Worker)
    return core


@bentoml.service(
    name="fewclip",
    service_class=FewclipService,
    workers=SETTINGS.workers,
    threads=1,  # one batch at a time, on all cores that the worker has
    http={"host": SETTINGS.host, "port": SETTINGS.port},
    logging={"access": {"enabled": False}},
    # No spans unless a BentoML configuration asks for them: they are created even if unused.
    tracing={"excluded_urls": "."},
    # For containers, whose loopback nobody outside can reach.
    envs=[
        {"name": "BENTOML_DO_NOT_TRACK", "value": "True"},
        {"name": "BENTOML_HOST", "value": "0.0.0.0"},
    ],
)
@bentoml.asgi_app(create_api(SETTINGS, _core), path=PREFIX)
class Fewclip:
    """Classify images with exported models."""

    bento_service: Any  # set by BentoML

    def __init__(self) -> None:
        logs.configure()
        self.core = Worker(SETTINGS, self._dispatch)
        SHUTDOWN.install()

    async def _dispatch(self, job: Job) -> decide.Prediction | None:
        """One job through BentoML's adaptive batching.

        Straight to the dispatcher: BentoML's `to_async` would send every job as an HTTP request
        through the whole app, pixels written out as JSON.
        """
        factory: ServiceAppFactory = self.bento_service.factory
        try:
            answers = await factory.batch_infer("infer", ([job],), {})
        except ServiceUnavailable as error:
            raise APIError("busy", "the queue is full; try again in a moment") from error
        answer: decide.Prediction | None = answers[0]
        return answer

    @bentoml.api(  # type: ignore[untyped-decorator]
        batchable=True,
        max_batch_size=SETTINGS.max_batch,
        max_latency_ms=int(SETTINGS.timeout * 1000),
    )
    def infer(self, jobs: list[Any]) -> list[Any]:
        """What BentoML batches; not a route (the middleware blocks it)."""
        return list(run_batch(jobs))

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, image: Path, top_k: int = 5, model: str = "") -> dict[str, Any]:
        """Classify one image: the route of `bentoml.SyncHTTPClient`.

        Over HTTP the middleware sends it to `/v1/predict`; this body is for calls within a process.
        """
        chosen = self.core.models.get(model or None)
        prediction = chosen.classifier.predict(image, top_k)[0]
        return prediction.to_dict() | {"model": chosen.name}

    async def __is_ready__(self) -> bool:
        return self.core.models.ready

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def open_page(self) -> None:
        if SETTINGS.ui:
            await PAGE.start(self.core.models, SETTINGS)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        await PAGE.stop()
        self.core.close()
