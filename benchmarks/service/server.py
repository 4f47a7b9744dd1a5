"""A real `fewclip serve` in a process of its own. No measuring.

Shared by tests and benchmarks of the service.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.service.web_process import WebProcess


class Server(WebProcess):
    """Start on entering, SIGTERM on leaving.

    Args:
        folder: an exported folder, or a folder of them.
        settings: of the service: `max_bytes=1000` becomes FEWCLIP_MAX_BYTES.
        command: what to run instead of `fewclip serve`; it gets the port in its environment.
    """

    def __init__(
        self, folder: Path | str, *, command: list[str] | None = None, **settings: Any
    ) -> None:
        super().__init__()
        self._folder = folder
        self._command = command
        self._settings = settings

    def command(self) -> Sequence[str]:
        serve = [sys.executable, "-m", "fewclip.cli", "serve", str(self._folder)]
        return self._command or serve

    def environ(self) -> Mapping[str, str]:
        settings = {"port": self.port, **self._settings}
        return {f"FEWCLIP_{name.upper()}": str(value) for name, value in settings.items()}

    def ready(self) -> bool:
        """Whether /readyz says 200."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def memory(self) -> int:
        """Resident bytes of all workers."""
        return sum(int(worker.memory_info().rss) for worker in self.workers())

    def events(self) -> Iterator[dict[str, Any]]:
        """Its log lines, parsed."""
        for line in self.log().splitlines():
            if line.startswith("{") and line.endswith("}"):  # the last may be half written
                yield json.loads(line)

    def event(self, request_id: str, seconds: float = 10.0) -> dict[str, Any]:
        """The log line of a request, which is written once its answer is out."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for event in self.events():
                if event.get("request_id") == request_id:
                    return event
            time.sleep(0.05)
        raise RuntimeError(f"request {request_id} is not in the log:\n{self.log()}")

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics, by its name and labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}
