"""Models and servers that the tests of the service share. Real ones: exported, started, killed."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from service_parts import CLASSES, LIMITS, encoded

from benchmarks.service.server import Server
from fewclip.artifact import read_card, write_folder
from fewclip.contract import CARD_FILE, Calibration


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A really exported micro model; FEWCLIP_TEST_EXPORT names one that is there already."""
    if given := os.environ.get("FEWCLIP_TEST_EXPORT"):
        return Path(given)
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one export for all workers
        shared = shared.parent
    target = shared / "exported"
    with open(shared / "exported.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            import fewclip

            fewclip.zero_shot(CLASSES).export_onnx(target)
    return target


@pytest.fixture(scope="session")
def variant(exported: Path) -> Callable[..., None]:
    """variant(target, temperature): the model with scores that tell it from the others."""

    def make(target: Path, temperature: float, *, overwrite: bool = True) -> None:
        def fill(folder: Path) -> object:
            for file in exported.iterdir():
                if file.name != CARD_FILE:
                    shutil.copy(file, folder)
            calibration = Calibration(temperature=temperature)
            return dataclasses.replace(read_card(exported), calibration=calibration)

        write_folder(target, fill, overwrite=overwrite)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def server(exported: Path) -> Iterator[Server]:
    with Server(exported, **LIMITS) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield http


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A JPEG of 160 x 120."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    return encoded(Image.fromarray(noise).resize((160, 120)), "JPEG")


@pytest.fixture(scope="session")
def plain() -> Callable[[str], bytes]:
    """plain("red"): a PNG of that colour."""
    return lambda colour: encoded(Image.new("RGB", (40, 30), colour))
