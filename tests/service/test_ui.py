"""`fewclip serve DIR --ui`: the page in a real browser, behind the token, asking nobody else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.service.server import Server
from fewclip.cli import main
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
        assert [event for event in server.events() if event["level"] == "error"] == []


@pytest.mark.filterwarnings("default")  # of what Playwright imports
def test_of_two_models_either_can_be_chosen(
    exported: Path, variant: Callable[..., None], photo: bytes, tmp_path: Path, browser: Any
) -> None:
    variant(tmp_path / "warm", 50.0)
    (tmp_path / "photo.jpg").write_bytes(photo)
    folders = [str(exported), str(tmp_path / "warm")]
    command = [sys.executable, "-m", "fewclip.cli", "serve", *folders, "--ui"]
    with Server("", command=command) as server:
        listed = httpx.get(f"{server.url}/v1/models", timeout=30).json()["models"]
        assert [model["name"] for model in listed] == [exported.name, "warm"]
        page = browser.new_page()
        page.goto(f"{server.url}/ui/")
        page.locator(f"h1:text-is('{exported.name}')").wait_for(timeout=60_000)
        photos = page.locator("#classify-photos input[type=file]")
        photos.set_input_files(str(tmp_path / "photo.jpg"))
        page.locator("#answers :text('%')").first.wait_for(timeout=60_000)
        before = page.locator("#answers").inner_text()
        page.get_by_label("warm").check()
        page.locator("h1:text-is('warm')").wait_for(timeout=60_000)
        page.wait_for_function(
            "old => document.querySelector('#answers').innerText !== old", arg=before
        )
        page.close()


def test_two_folders_of_one_name_are_refused(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / exported.name).symlink_to(exported)
    assert main(["serve", str(exported), str(tmp_path / exported.name)]) == 2
    assert "two models are called" in capsys.readouterr().err
