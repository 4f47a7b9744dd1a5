"""The page at /ui/: the classify step of `fewclip_app` over the models being served.

Gradio is imported here and nowhere else, and only if the page is enabled.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from fewclip_service.http.http_errors import APIError
from fewclip_service.inference.model_store import Models
from fewclip_service.settings import Settings

PREFIX = "/ui"


class Page:
    """An ASGI app, available once it has been started."""

    def __init__(self) -> None:
        self._app: Any = None
        self._running = contextlib.AsyncExitStack()

    async def start(self, models: Models, settings: Settings) -> None:
        """Build the page. Without a model there is none, and /ui/ says so."""
        if not models.ready:
            return
        # Read by Gradio when it is imported; uploads are deleted when the worker ends.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = self._running.enter_context(
            tempfile.TemporaryDirectory(prefix="fewclip-ui-", ignore_cleanup_errors=True)
        )
        import gradio

        import fewclip_app
        from fewclip_app.server import KeepToOurselves

        blocks = fewclip_app.classify_ui(models.classifiers, max_pixels=settings.max_pixels)
        app = gradio.mount_gradio_app(
            FastAPI(openapi_url=None),
            blocks,
            path=PREFIX,
            max_file_size=settings.max_bytes,
            **fewclip_app.mount_options(),
        )
        await self._running.enter_async_context(app.router.lifespan_context(app))
        self._app = KeepToOurselves(app)

    async def stop(self) -> None:
        self._app = None
        await self._running.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            raise APIError("not_ready", "no model was there when the page should have been built")
        await self._app(scope, receive, send)
