"""A worker's last second: how it stops without losing a request. Signals only.

When stopped, uvicorn closes idle connections at once, and a request on its way on one of them is
lost. So at first the signal only changes the answers: every one closes its connection, and /readyz
says 503. A moment later, when no connection is left that a client would reuse, uvicorn gets the
signal and finishes what is still being computed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from types import FrameType
from typing import Any

from fewclip_service.logs import log

SECONDS = 1.0


class GracefulShutdown:
    """Whether this process is stopping."""

    def __init__(self) -> None:
        self.draining = False

    def install(self) -> None:
        """Take over SIGTERM and SIGINT from uvicorn; call it on the running event loop."""
        if threading.current_thread() is not threading.main_thread():
            return  # no server of our own: whoever embeds the service owns the signals
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handler(signal.getsignal(number)))

    def _handler(self, then: Any) -> Any:
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            if not callable(then):
                return
            if self.draining:  # asked twice: stop at once
                then(number, frame)
                return
            self.draining = True
            log(logging.INFO, "stopping", signal=signal.Signals(number).name)
            loop.call_soon_threadsafe(loop.call_later, SECONDS, then, number, frame)

        return handle
