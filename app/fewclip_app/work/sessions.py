"""Who has which workspace, and until when. A reloaded page finds its own by a secret token.

Gradio's own session state belongs to one page view: a reload would lose hours of work.
"""

from __future__ import annotations

import dataclasses
import secrets
import shutil
import threading
import time
from pathlib import Path

import gradio as gr

from fewclip.errors import DataError
from fewclip_app.settings import Settings
from fewclip_app.work.job_queue import JobQueue
from fewclip_app.work.workspace import Workspace

FORGOTTEN = 24 * 3600.0  # seconds after which an open but idle page counts as closed
LEFT = 120.0  # seconds until a training whose page was closed is stopped if others wait
SWEEP = 30.0  # seconds between two sweeps


@dataclasses.dataclass
class _Entry:
    workspace: Workspace
    views: set[str]
    used: float


class Sessions:
    """All workspaces of one running page, in one folder that is deleted at the end.

    Args:
        root: the folder; inside Gradio's own, so thumbnails and downloads need no second copy.
    """

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.jobs = JobQueue(settings.trainings)
        self.exports = JobQueue(1)
        self.checks = JobQueue(1)
        self._entries: dict[str, _Entry] = {}
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._sweep_forever, daemon=True, name="fewclip-sweep").start()

    def of(self, request: gr.Request) -> Workspace:
        """The workspace of a page view or a client.

        Raises:
            DataError: the call belongs to no session.
        """
        return self._entry(self._view(request), None)[1].workspace

    def join(self, request: gr.Request, token: str | None) -> tuple[Workspace, str]:
        """Bind a page view to the token's workspace, or to a new one; returns it and its token."""
        token, entry = self._entry(self._view(request), token)
        return entry.workspace, token

    def left(self, request: gr.Request) -> None:
        """Note that a page view was closed; its workspace is kept for a while."""
        with self._lock:
            token = self._tokens.pop(str(request.session_hash), None)
            if token in self._entries:
                self._entries[token].views.discard(str(request.session_hash))
                self._entries[token].used = time.monotonic()

    def sweep(self) -> None:
        """Delete abandoned workspaces, and stop abandoned trainings that others wait for."""
        now, keep = time.monotonic(), 60.0 * self.settings.keep_minutes
        with self._lock:
            if self.jobs.someone_waits():
                for entry in self._entries.values():
                    if not entry.views and now - entry.used > LEFT and entry.workspace.job:
                        entry.workspace.job.stop()
            gone = [
                token
                for token, entry in self._entries.items()
                if now - entry.used > (FORGOTTEN if entry.views else keep)
            ]
            entries = [self._entries.pop(token) for token in gone]
        for entry in entries:
            entry.workspace.delete()

    def close(self) -> None:
        """Stop all trainings and delete everything."""
        self._closed.set()
        self.jobs.close()
        self.exports.close()
        self.checks.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _view(self, request: gr.Request) -> str:
        if not request.session_hash:
            raise DataError("this call belongs to no session; use the page or gradio_client")
        return str(request.session_hash)

    def _entry(self, view: str, token: str | None) -> tuple[str, _Entry]:
        with self._lock:
            token = token or self._tokens.get(view)
            if token is None or token not in self._entries:
                token = secrets.token_urlsafe(32)
                # The folder's name appears in the URLs of images; the token does not.
                folder = self.root / secrets.token_hex(16)
                self._entries[token] = _Entry(Workspace(folder, self.settings), set(), 0.0)
            entry = self._entries[token]
            entry.views.add(view)
            entry.used = time.monotonic()
            self._tokens[view] = token
            return token, entry

    def _sweep_forever(self) -> None:
        while not self._closed.wait(SWEEP):
            self.sweep()
