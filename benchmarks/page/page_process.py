"""A real `fewclip app` in a process of its own, and the Chromium that looks at it. No checks.

Shared by tests and screenshots of the page.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.service.web_process import WebProcess

# As root, and with the small /dev/shm of a container, Chromium needs the first two.
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]


class Page(WebProcess):
    """Start on entering, SIGTERM on leaving.

    Args:
        settings: of the page: `max_files=10` becomes FEWCLIP_APP_MAX_FILES.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._settings = settings
        self.temporary = Path(tempfile.mkdtemp(prefix="fewclip-page-"))

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "fewclip.cli", "app", "--port", str(self.port)]

    def environ(self) -> Mapping[str, str]:
        settings = {f"FEWCLIP_APP_{k.upper()}": str(v) for k, v in self._settings.items()}
        return settings | {"TMPDIR": str(self.temporary)}

    def ready(self) -> bool:
        return "the page is at" in self.log()

    def clean_up(self) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)

    def get(self, path: str) -> httpx.Response:
        """One request, outside of any browser."""
        return httpx.get(self.url + path, timeout=30)


def chromium_path() -> str | None:
    """Debian's Chromium, or another; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def launch(playwright: Any) -> Any:
    """A headless browser with a fake webcam."""
    return playwright.chromium.launch(executable_path=chromium_path(), headless=True, args=FLAGS)
