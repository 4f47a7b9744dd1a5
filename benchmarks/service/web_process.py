"""A web server of ours in a process of its own, on a free loopback port. Subclasses say which."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

import psutil  # type: ignore[import-untyped]

START_SECONDS = 120.0


class WebProcess:
    """Start on entering, SIGTERM on leaving.

    Attributes:
        port, url: where it listens.
        process: the server's own; its workers are children.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115

    def command(self) -> Sequence[str]:
        """What to run."""
        raise NotImplementedError

    def environ(self) -> Mapping[str, str]:
        """Its environment variables, besides this process's."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it accepts requests yet."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self.command(),
            env={**os.environ, **self.environ()},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__(None, None, None)
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
        self.clean_up()

    def clean_up(self) -> None:
        """Remove what is left when the server has ended."""

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until it is `ready`.

        Raises:
            RuntimeError: it died, or is not ready in time; the message holds its log.
        """
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                raise RuntimeError(f"exit status {self.process.returncode}:\n{self.log()}")
            if self.ready():
                return
            time.sleep(0.1)
        raise RuntimeError(f"not ready after {seconds:g} s:\n{self.log()}")

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM, then kill what ignores it; returns the exit status."""
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

    def log(self) -> str:
        """Everything it wrote so far."""
        size = os.fstat(self._log.fileno()).st_size  # the server shares the file's position
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
