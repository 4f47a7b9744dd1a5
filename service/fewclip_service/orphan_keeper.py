"""Requests whose worker was killed: the parent answers them 503. It reads and forwards none.

`orphan_copies.py` gives the parent a copy of each connection's descriptor, and notes in shared
memory how far its request has got. The copy keeps the connection open when the worker is gone, and
a request without an answer gets one. An answer that had begun breaks off, as it would without this.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from fewclip_service.http.http_errors import APIError
from fewclip_service.logs import log
from fewclip_service.orphan_copies import (
    ANSWERING,
    CLOSED,
    FOLDER,
    HELLO,
    IDLE,
    MESSAGE,
    PLACES,
    SOCKET,
    WAITING,
    shared_states,
)

_SHARE = 0.5  # of the parent's descriptors, which it needs to start workers, too
_LINGER = 2.0  # seconds in which a client may finish sending and read its answer


class OrphanKeeper:
    """The parent's side. Use it as a context manager around the workers.

    Args:
        folder: an empty one that nothing else uses.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._listener: socket.socket | None = None
        self._free = _descriptors()
        self._lock = threading.Lock()

    def __enter__(self) -> OrphanKeeper:
        if sys.platform == "linux":
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with contextlib.suppress(OSError):  # path too long: connections break as without this
                listener.bind(str(self._folder / SOCKET))
                listener.listen()
                os.environ[FOLDER] = str(self._folder)
                self._listener = listener
                threading.Thread(target=self._accept, name="orphans", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(FOLDER, None)
        if self._listener is not None:
            self._listener.close()

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):  # closed
            while True:
                worker, _ = self._listener.accept()
                threading.Thread(target=self._follow, args=(worker,), daemon=True).start()

    def _follow(self, worker: socket.socket) -> None:
        """Follow one worker from its first connection to its end."""
        copies: dict[int, int] = {}
        states: bytes | mmap.mmap = b""
        with worker, contextlib.suppress(OSError):
            while message := _received(worker):
                (kind, number), handle = message
                if kind == HELLO:
                    states = shared_states(self._folder / str(number))
                elif kind == CLOSED:
                    self._let_go(copies.pop(number, None))
                elif handle is not None and self._may_hold():
                    copies[number] = handle
                elif handle is not None:
                    os.close(handle)
        answered = _answer_all(copies, states)
        with self._lock:
            self._free += len(copies)
        if answered:
            log(logging.WARNING, "worker_died", answered_503=answered)

    def _may_hold(self) -> bool:
        with self._lock:
            may = self._free > 0
            self._free -= may
            return may

    def _let_go(self, handle: int | None) -> None:
        if handle is not None:
            os.close(handle)
            with self._lock:
                self._free += 1


def _received(worker: socket.socket) -> tuple[tuple[int, int], int | None] | None:
    """(kind, number) and a descriptor; None when the worker is gone."""
    message, handles, _, _ = socket.recv_fds(worker, MESSAGE.size, 1)
    if not message:
        return None
    kind, number = MESSAGE.unpack(message)
    return (kind, number), handles[0] if handles else None


def _answer_all(copies: Mapping[int, int], states: bytes | mmap.mmap) -> int:
    """Answer what is waiting, and close everything; returns how many were answered."""
    waiting = []
    for place, handle in copies.items():
        connection = socket.socket(fileno=handle)
        connection.setblocking(False)
        state = states[place] if states else ANSWERING
        if state == WAITING or (state == IDLE and _has_unread(connection)):
            with contextlib.suppress(OSError):
                connection.send(_ANSWER)
                connection.shutdown(socket.SHUT_WR)
            waiting.append(connection)
        else:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
    _linger(waiting)
    return len(waiting)


def _has_unread(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def _linger(connections: list[socket.socket]) -> None:
    """Read what clients still send: closing with unread data would discard the answer."""
    ends = time.monotonic() + _LINGER
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map() and (left := ends - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                if not _read_some(key.fileobj):
                    selector.unregister(key.fileobj)
    for connection in connections:
        connection.close()


def _read_some(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1 << 20))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _descriptors() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return PLACES if soft == resource.RLIM_INFINITY else int(_SHARE * soft)


def _answer() -> bytes:
    problem = APIError("busy", "the process that had this request ended; send it again")
    body = json.dumps(problem.body()).encode()
    headers = {**problem.headers, "Content-Type": "application/json", "Connection": "close"}
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(["HTTP/1.1 503 Service Unavailable", *lines, f"Content-Length: {len(body)}"])
    return head.encode() + b"\r\n\r\n" + body


_ANSWER = _answer()
