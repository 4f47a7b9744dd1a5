"""What a worker hands to the parent, which answers its requests if it dies: `orphan_keeper.py`.

A copy of each connection's descriptor goes over a socket; a byte in shared memory says how far its
request has got, so that a request costs no message.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import mmap
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uvicorn.protocols.http import auto

FOLDER = "_FEWCLIP_ORPHANS"  # environment variable: where the parent listens
SOCKET = "socket"
MESSAGE = struct.Struct("<BI")
HELLO, OPENED, CLOSED = range(3)  # ... and the worker's process id, or the connection's place
IDLE, WAITING, ANSWERING = range(3)  # the byte of a place
PLACES = 4096  # connections of one worker; more are not kept
_CONTINUE = b"HTTP/1.1 100 "


def keep_orphans(environ: Mapping[str, str] = os.environ) -> None:
    """Install the worker's side for a server that is started later in the same process."""
    folder = environ.get(FOLDER)
    if folder is None:
        return
    base: Any = auto.AutoHTTPProtocol
    copies = _Copies(Path(folder))

    class KeptProtocol(base):  # type: ignore[misc]
        """One connection; `cycle` is the base class's request in progress."""

        _place: int | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            self._place = copies.add(transport)
            super().connection_made(_Watched(transport, self._note))

        def data_received(self, data: bytes) -> None:
            if self._place is not None and copies.states[self._place] == IDLE:
                self._note(WAITING)
            super().data_received(data)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            more = self.cycle is not None and not self.cycle.response_complete
            self._note(WAITING if more else IDLE)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._place is not None:
                copies.remove(self._place, self.transport)

        def _note(self, state: int) -> None:
            if self._place is not None:
                copies.states[self._place] = state

    auto.AutoHTTPProtocol = KeptProtocol


class _Watched:
    """A transport that reports an answer just before it begins."""

    def __init__(self, transport: asyncio.Transport, note: Any) -> None:
        self._transport, self._note = transport, note

    def write(self, data: bytes) -> None:
        if not data.startswith(_CONTINUE):
            self._note(ANSWERING)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Copies:
    """What a worker has handed to the parent; opened with its first connection."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parent: socket.socket | None = None
        self._free = list(range(PLACES))
        self._closed: list[int] = []  # freed places that the parent does not know of yet
        self.states: Any = bytearray()

    def add(self, transport: asyncio.Transport) -> int | None:
        """Hand a connection to the parent: its place, or None if the parent does not take it."""
        try:
            parent = self._parent or self._connect()
            self._report_closed(parent)
            place = self._free.pop()
        except (OSError, IndexError):
            return None
        self.states[place] = IDLE
        handle = array.array("i", [transport.get_extra_info("socket").fileno()])
        right = (socket.SOL_SOCKET, socket.SCM_RIGHTS, handle)
        try:
            parent.sendmsg([MESSAGE.pack(OPENED, place)], [right], socket.MSG_DONTWAIT)
        except OSError:  # the parent is behind, and need not hold this one
            self._free.append(place)
            return None
        return place

    def remove(self, place: int, transport: asyncio.Transport) -> None:
        """Shut down a finished connection: the parent's copy stays open a moment longer."""
        with contextlib.suppress(OSError, TypeError):  # closed already; uvloop's has no shutdown
            transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        assert self._parent is not None
        self._closed.append(place)
        self._report_closed(self._parent)

    def _report_closed(self, parent: socket.socket) -> None:
        """Report without waiting: what a parent that is behind does not take is reported later."""
        with contextlib.suppress(OSError):
            while self._closed:
                parent.send(MESSAGE.pack(CLOSED, self._closed[-1]), socket.MSG_DONTWAIT)
                self._free.append(self._closed.pop())

    def _connect(self) -> socket.socket:
        with open(self._folder / str(os.getpid()), "wb") as file:
            file.truncate(PLACES)
        parent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent.connect(str(self._folder / SOCKET))
        parent.sendall(MESSAGE.pack(HELLO, os.getpid()))
        self.states = shared_states(self._folder / str(os.getpid()))
        self._parent = parent
        return parent


def shared_states(path: Path) -> mmap.mmap:
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), PLACES)
