"""Uploads of all people together are bounded, whoever sends them and before they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fewclip_app.upload_quota import UploadQuota, stored

MOST = 1000


@pytest.fixture
def app(tmp_path: Path) -> UploadQuota:
    """Stores each body as Gradio does, in a folder of its own; `people` has limits of its own."""

    async def store(request: Request) -> PlainTextResponse:
        body = await request.body()
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "image.png").write_bytes(body)
        return PlainTextResponse("stored")

    people = tmp_path / "people"
    people.mkdir()
    (people / "kept.png").write_bytes(bytes(5000))
    inner = Starlette(routes=[Route("/gradio_api/upload", store, methods=["POST"])])
    return UploadQuota(inner, tmp_path, people, MOST)


async def post(app: UploadQuota, body: bytes | Iterator[bytes]) -> int:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        content = body if isinstance(body, bytes) else _aiter(body)
        return (await client.post("/gradio_api/upload", content=content)).status_code


async def _aiter(pieces: Iterator[bytes]):  # type: ignore[no-untyped-def]
    for piece in pieces:
        yield piece


def test_what_finds_no_room_is_refused_until_something_goes(
    app: UploadQuota, tmp_path: Path
) -> None:

    people = tmp_path / "people"
    assert asyncio.run(post(app, bytes(600))) == 200
    assert asyncio.run(post(app, bytes(600))) == 507
    assert stored(tmp_path, people) == 600
    for file in tmp_path.glob("*/image.png"):
        file.unlink()
    assert asyncio.run(post(app, bytes(600))) == 200


def test_uploads_under_way_count(app: UploadQuota) -> None:

    async def together() -> list[int]:
        return list(await asyncio.gather(*(post(app, bytes(400)) for _ in range(5))))

    statuses = asyncio.run(together())
    assert set(statuses) == {200, 507}
    assert statuses.count(200) <= MOST // 400


def test_a_body_without_a_length_is_refused(app: UploadQuota) -> None:

    assert asyncio.run(post(app, iter([b"x"]))) == 411
