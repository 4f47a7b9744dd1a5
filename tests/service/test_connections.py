"""Heads that never end are closed in time, and good requests are answered meanwhile."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.service.server import Server

pytestmark = pytest.mark.slow


def test_unfinished_heads_do_not_stop_the_service(exported: Path, photo: bytes) -> None:
    with Server(exported, head_timeout=1.0, connections=20) as server:
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=15) for _ in range(60)]
        try:
            for each in slow[:20]:
                each.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n")
            ends = time.monotonic() + 15
            status = 0
            while status != 200 and time.monotonic() < ends:
                try:
                    files = {"image": photo}
                    status = httpx.post(f"{server.url}/v1/predict", files=files).status_code
                except httpx.TransportError:
                    time.sleep(0.2)
            assert status == 200
            assert slow[0].recv(1) == b""
        finally:
            for each in slow:
                each.close()
