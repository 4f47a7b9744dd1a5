"""A real `fewclip app` in a process of its own, and the Chromium that looks at it. No checks.

What tests and screenshots of the page share.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

from benchmarks.service.server import free_port

START_SECONDS = 120.0
# As root, and with the small /dev/shm of a container, Chromium needs the first two.
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]


class Page:
    """Start on entering, SIGTERM on leaving.

    Args:
        settings: of the page: `max_files=10` becomes FEWCLIP_APP_MAX_FILES.
    """

    def __init__(self, **settings: Any) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = settings
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.temporary = Path(tempfile.mkdtemp(prefix="fewclip-page-"))

    def __enter__(self) -> Self:
        environ = {f"FEWCLIP_APP_{k.upper()}": str(v) for k, v in self._settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fewclip.cli", "app", "--port", str(self.port)],
            env=os.environ | environ | {"TMPDIR": str(self.temporary)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        ends = time.monotonic() + START_SECONDS
        while b"the page is at" not in self.log().encode():
            if self.process.poll() is not None or time.monotonic() > ends:
                told = self.log()
                self.__exit__(None, None, None)
                raise RuntimeError(f"the page did not start:\n{told}")
            time.sleep(0.2)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._log.close()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM, and kill what does not follow it; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def log(self) -> str:
        """Everything it wrote so far."""
        size = os.fstat(self._log.fileno()).st_size  # the server shares the file's position
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def get(self, path: str) -> httpx.Response:
        """One request, outside of any browser."""
        return httpx.get(self.url + path, timeout=30)


def chromium_path() -> str | None:
    """Debian's chromium, or what else there is."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def launch(playwright: Any) -> Any:
    """A headless browser with a made-up webcam."""
    return playwright.chromium.launch(executable_path=chromium_path(), headless=True, args=FLAGS)
