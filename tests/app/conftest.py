"""What the tests of the page share: small images, zips of them, a running page."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from visitor import Enter, Visitor

from benchmarks.page.page_process import Page
from fewclip.samples import digits

LABELS = ("one", "zero")


def picture(label: str, index: int) -> bytes:
    """A real digit as PNG bytes."""
    out = io.BytesIO()
    digits.draw(label, index).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def digit_png() -> Callable[[str, int], bytes]:
    """digit_png("three", 7) -> a real digit as PNG bytes."""
    return picture


@pytest.fixture
def make_zip(tmp_path: Path) -> Callable[..., Path]:
    """make_zip({"name in the zip": content}) -> its path."""

    def make(content: dict[str, bytes], name: str = "images.zip") -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as zipped:
            for inner, data in content.items():
                zipped.writestr(inner, data)
        return path

    return make


@pytest.fixture
def digits_zip(make_zip: Callable[..., Path]) -> Path:
    """Two digits, ten images of each."""
    return make_zip({f"{c}/{i}.png": picture(c, i) for c in LABELS for i in range(10)})


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[str], Path]:
    """photo("red") -> a plain image of that colour."""

    def make(colour: str) -> Path:
        path = tmp_path / f"{colour}.png"
        Image.new("RGB", (40, 30), colour).save(path)
        return path

    return make


@pytest.fixture(scope="session")
def page() -> Iterator[Page]:
    """The page as it is started by default."""
    with Page() as running:
        yield running


@pytest.fixture
def enter(browser: Any, page: Page) -> Iterator[Enter]:
    """A new visitor, with a browser profile of their own."""
    with contextlib.ExitStack() as closing:

        def make(**options: Any) -> Visitor:
            context = browser.new_context(**options)
            closing.callback(context.close)
            return Visitor(context, page)

        yield make
