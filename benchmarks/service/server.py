"""A real `fewclip serve` in a process of its own, on a free port of loopback. No measuring.

What tests and benchmarks of the service share.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx
import psutil  # type: ignore[import-untyped]

START_SECONDS = 120.0


class Server:
    """Start on entering, SIGTERM on leaving.

    Args:
        folder: an exported folder, or a folder of them.
        settings: of the service: `max_bytes=1000` becomes FEWCLIP_MAX_BYTES.
        command: instead of `fewclip serve`, what to run; it is given the port by environment.
    """

    def __init__(
        self, folder: Path | str, *, command: list[str] | None = None, **settings: Any
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._command = command
        self._settings = settings
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> Self:
        settings = {"port": self.port, **self._settings}
        environ = {f"FEWCLIP_{name.upper()}": str(value) for name, value in settings.items()}
        command = self._command or [sys.executable, "-m", "fewclip.cli", "serve", str(self._folder)]
        self.process = subprocess.Popen(
            command, env=os.environ | environ, stdout=self._log, stderr=subprocess.STDOUT
        )
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            self._log.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._log.close()

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Until /readyz says 200.

        Raises:
            RuntimeError: it died, or is not ready in time; the message holds its log.
        """
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                raise RuntimeError(f"exit status {self.process.returncode}:\n{self.log()}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"not ready after {seconds:g} s:\n{self.log()}")

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM, and kill what does not follow it; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        children = self.workers()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for child in children:
                child.kill()
            self.process.kill()
            return self.process.wait()

    def workers(self) -> list[Any]:
        """The worker processes, as psutil sees them."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def memory(self) -> int:
        """Resident bytes of all workers."""
        return sum(int(worker.memory_info().rss) for worker in self.workers())

    def log(self) -> str:
        """Everything it wrote so far."""
        size = os.fstat(self._log.fileno()).st_size  # the server shares the file's position
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

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


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
