"""ASGI middleware: a limit on uploads not yet deleted, for all people together.

Gradio stores an upload before anybody says whose it is, so limits per person cannot bound it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # comes with Gradio
    from starlette.types import ASGIApp, Receive, Scope, Send


class UploadQuota:
    """Refuses an upload that declares no length (411) or for which there is no room (507).

    Args:
        folder: where uploads are stored.
        apart: the folder below it that has its own limits.
        most: limit on the bytes of all uploads.
    """

    def __init__(
        self,
        app: ASGIApp,
        folder: Path,
        apart: Path,
        most: int,
    ) -> None:
        self.app = app
        self._folder, self._apart, self._most = folder, apart, most
        self._coming = 0  # bytes of uploads in progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_upload = (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and str(scope["path"]).rstrip("/").endswith("/upload")
        )
        if not is_upload:
            await self.app(scope, receive, send)
            return
        text = dict(scope["headers"]).get(b"content-length", b"").decode("latin-1")
        if not (text.isascii() and text.isdigit()):
            await _refuse(send, 411, b"an upload must say its length")
            return
        length = int(text)
        self._coming += length
        try:
            there = await asyncio.to_thread(stored, self._folder, self._apart)
            if there + self._coming > self._most:
                await _refuse(send, 507, b"no room for uploads at the moment; try again later")
                return
            await self.app(scope, receive, send)
        finally:
            self._coming -= length


def stored(folder: Path, apart: Path) -> int:
    """Bytes of all files below a folder, except one folder in it."""
    total = 0
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(where, name) != apart]
        for name in files:
            try:
                total += os.stat(os.path.join(where, name)).st_size
            except OSError:  # deleted meanwhile
                continue
    return total


async def _refuse(send: Send, status: int, reason: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason})
