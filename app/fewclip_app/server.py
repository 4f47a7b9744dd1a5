"""Starts the page and leaves nothing behind. On loopback only, unless another host is given."""

from __future__ import annotations

import fcntl
import ipaddress
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fewclip.errors import OptionError
from fewclip_app.settings import Settings
from fewclip_app.upload_quota import UploadQuota

if TYPE_CHECKING:  # comes with Gradio, whose absence is reported below
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The browser may contact only this server. Gradio's own scripts and styles are inline, and it
# creates workers from blobs.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'; object-src 'none'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]

_PREFIX = "fewclip-app-"
_STARTING = 60.0  # seconds
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class KeepToOurselves:
    """ASGI middleware: the browser loads nothing from elsewhere, and the server fetches nothing.

    Gradio would fetch `/gradio_api/file=http://...` for anyone. A foreign page whose host name is
    made to resolve to this server (DNS rebinding) would count as same-origin, so only known host
    names are accepted; an IP address cannot be rebound.
    """

    def __init__(
        self,
        app: ASGIApp,
        names: frozenset[str] = frozenset(),
    ) -> None:
        self.app = app
        self.names = names | {"localhost", ""}

    def _knows(self, host: str) -> bool:
        name = host.rpartition(":")[0] if re.search(r":[0-9]*$", host) else host
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name.lower().rstrip(".") in self.names
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        if scope["type"] in ("http", "websocket"):
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            if not self._knows(host):
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008})
                    return
                await send({"type": "http.response.start", "status": 421, "headers": []})
                body = b"this page is not called by that name; its --hosts may name it"
                await send({"type": "http.response.body", "body": body})
                return
        if scope["type"] == "http":
            path = str(scope["path"]).lower()
            if "file=" in path and "://" in path.partition("file=")[2].replace(":/", "://", 1):
                await send({"type": "http.response.start", "status": 403, "headers": []})
                await send({"type": "http.response.body", "body": b"not a file of this page"})
                return
        await self.app(scope, receive, with_headers)


def run(
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    settings: Settings | None = None,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM, then delete everything that was uploaded.

    Args:
        settings: limits and access; None to read them from the environment.

    Raises:
        OptionError: the port is taken.
        MissingExtraError: Gradio is not installed.
    """
    settings = settings or Settings.read()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    remove_leftovers(Path(tempfile.gettempdir()))
    root = Path(tempfile.mkdtemp(prefix=_PREFIX))
    held = os.open(root, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # until this process ends, however it ends
    # Read by Gradio when it is imported and when it stores an upload.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(root)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _serve(root, host, port, settings)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        os.close(held)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed pages left behind; a running page holds a lock on its folder."""
    for leftover in folder.glob(f"{_PREFIX}*"):
        try:
            # A page that is just starting has its folder before it has its lock.
            if leftover.is_symlink() or time.time() - leftover.stat().st_mtime < _STARTING:
                continue
            handle = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # removed meanwhile, or another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        except OSError:  # locked by its page
            continue
        finally:
            os.close(handle)


def _names(host: str, settings: Settings) -> frozenset[str]:
    """Host names that browsers may use; this machine's own too if others can reach it."""
    own = {host, socket.gethostname()} if host not in _LOOPBACK else set()
    return frozenset(name.lower() for name in {*own, *settings.hosts})


def _serve(root: Path, host: str, port: int, settings: Settings) -> None:
    try:
        from starlette.middleware import Middleware

        from fewclip_app.ui import page, theme
        from fewclip_app.work.sessions import Sessions
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("gradio", "starlette"):
            from fewclip.errors import MissingExtraError

            raise MissingExtraError("the page", "app") from error
        raise
    sessions = Sessions(root / "people", settings)
    blocks = page.build(sessions)
    try:
        blocks.queue(default_concurrency_limit=4).launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            auth=(settings.user, settings.password) if settings.user else None,
            max_file_size=settings.max_bytes,
            app_kwargs={
                "middleware": [
                    Middleware(KeepToOurselves, names=_names(host, settings)),
                    Middleware(
                        UploadQuota,
                        folder=root,
                        apart=sessions.root,
                        most=settings.max_upload_bytes,
                    ),
                ]
            },
            **theme.mount_options(),
        )
    except OSError as error:
        raise OptionError(f"port {port} of {host} cannot be opened; name another --port") from error
    try:
        print(f"fewclip: the page is at http://{host}:{port} (Ctrl-C ends it)", flush=True)
        if host not in _LOOPBACK and not settings.user:
            print(
                "fewclip: anyone who reaches this port can use the page; "
                "--user and FEWCLIP_APP_PASSWORD ask for a password",
                file=sys.stderr,
                flush=True,
            )
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        sessions.close()
        blocks.close(verbose=False)
