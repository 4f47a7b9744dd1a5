"""What tests of several roots share: the photos beside the project, and the browser."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.page.page_process import chromium_path, launch


def pytest_collection_finish() -> None:
    """The modules imported by now stay: garbage collections need not go through them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of photo archives beside the project; they may not be shipped with it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the photos of ../shared/data are not here")
    return folder


@pytest.fixture(scope="module")  # no longer: Playwright's event loop is in the way of other tests
def browser() -> Iterator[Any]:
    """Headless Chromium; missing, it is an error in CI and a skip elsewhere."""
    if chromium_path() is None and not os.environ.get("CI"):
        pytest.skip("Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()
