"""Connections: a deadline for a request's head, and a limit on open ones. No requests.

uvicorn waits forever for a head, so a few hundred unfinished ones use up all descriptors. Its
protocol is extended here; what it does with a complete request is unchanged.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from uvicorn.protocols.http import auto

_SHARE = 0.75  # of the descriptors; the rest is for models, logs and decoding processes
_MOST = 1000


def limit_connections(head_seconds: float, most: int) -> None:
    """Limit the connections of a server that is started later in the same process.

    Args:
        head_seconds: until a connection without a complete head is closed.
        most: connections at once; 0 for what the process's descriptors allow.
    """
    base: Any = auto.AutoHTTPProtocol
    most = most or _allowed()

    class LimitedProtocol(base):  # type: ignore[misc]
        """One connection; `cycle` is the base class's request in progress."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.abort()
                return
            self._await_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            if self._busy():
                self._cancel()
            elif self._timer is None:
                self._timer = self.loop.call_later(head_seconds, self._late)

        def _late(self) -> None:
            self._timer = None
            if not self._busy():
                self.transport.close()

        def _busy(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _cancel(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    auto.AutoHTTPProtocol = LimitedProtocol


def _allowed() -> int:
    if sys.platform == "win32":
        return _MOST
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(1, min(_MOST, int(_SHARE * soft)))
