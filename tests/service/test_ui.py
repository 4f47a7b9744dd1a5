"""`fewclip serve DIR --ui`: the page in a real browser, behind the token, asking nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.server import Server
from fewclip.runtime import OnnxClassifier

pytestmark = pytest.mark.slow

TOKEN = "a-secret-token"


@pytest.mark.filterwarnings("default")  # of what Playwright imports
def test_a_photo_is_classified_in_a_browser(
    exported: Path, photo: bytes, tmp_path: Path, browser: Any
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo)
    expected = OnnxClassifier(exported).predict(path)[0]
    with Server(exported, ui="true", token=TOKEN) as server:
        closed = httpx.get(f"{server.url}/ui/")
        assert closed.status_code == 401
        assert closed.headers["www-authenticate"].startswith("Basic")
        context = browser.new_context(http_credentials={"username": "anyone", "password": TOKEN})
        with context:
            page = context.new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"{server.url}/ui/")
            page.locator("#classify-photos input[type=file]").set_input_files(str(path))
            page.locator(f"#answers :text('{expected.label}')").first.wait_for(timeout=60_000)
        assert {urlsplit(url).hostname for url in asked if url.startswith("http")} == {"127.0.0.1"}
        paths = {name for name in server.metrics() if "/ui/" in name}
        assert paths == set()  # BentoML would keep a series for each of Gradio's files
        assert not [event for event in server.events() if event["level"] == "error"]
