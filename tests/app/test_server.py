"""By which names the page may be called, and what a killed page leaves."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from fewclip_app.server import KeepToOurselves, _names, remove_leftovers
from fewclip_app.settings import Settings


def status(host: str, bound: str = "127.0.0.1", hosts: tuple[str, ...] = ()) -> int:
    async def home(_: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    names = _names(bound, Settings(hosts=hosts))
    app = Starlette(
        routes=[Route("/", home)], middleware=[Middleware(KeepToOurselves, names=names)]
    )
    return TestClient(app).get("/", headers={"host": host}).status_code


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"])
def test_the_loopback_answers_to_its_names(host: str) -> None:
    assert status(host) == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "localhost.evil.example"])
def test_a_name_made_to_lead_here_is_refused(host: str) -> None:
    assert status(host) == 421
    assert status(host, bound="0.0.0.0") == 421
    assert status(host, hosts=(host.partition(":")[0],)) == 200


def test_of_killed_pages_nothing_is_left(tmp_path: Path) -> None:
    dead, living, new, other = (
        tmp_path / name for name in ("fewclip-app-a", "fewclip-app-b", "fewclip-app-c", "other")
    )
    for folder in (dead, living, new, other):
        folder.mkdir()
        (folder / "photo").write_bytes(b"x")
        if folder != new:
            os.utime(folder, (0, 0))
    held = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        remove_leftovers(tmp_path)
    finally:
        os.close(held)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "fewclip-app-b", "fewclip-app-c", "other",
    ]  # fmt: skip
