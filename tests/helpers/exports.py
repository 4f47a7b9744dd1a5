"""A saved model and its exports, for the tests of runtime and export. Made once per run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handwritten_digits import PHRASES, write_digits

import fewclip


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Path:
    """The path that `make` writes to, made by the first test process that asks for it.

    FEWCLIP_TEST_MODELS names a folder that keeps what is made, for the next run.
    """
    shared = factory.getbasetemp()
    if kept := os.environ.get("FEWCLIP_TEST_MODELS"):
        shared = Path(kept)
    elif "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    target = shared / name
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            make(target)
    return target


def saved_model(factory: pytest.TempPathFactory) -> Path:
    """KgCoOp with DePT on three handwritten digits, calibrated on 18 of them, saved."""

    def make(target: Path) -> None:
        photos = write_digits(target.parent / "digits-to-export", 0, 14)
        clf = fewclip.adapt(
            photos,
            method="dept",
            shots=8,
            epochs=3,
            classes=PHRASES,
            device="cpu",
            progress=False,
        )
        clf.save(target)

    return once(factory, "saved-to-export", make)


def exported_model(factory: pytest.TempPathFactory, precision: str = "fp32") -> Path:
    """`saved_model`, exported from a process that no longer has its images in memory."""
    saved = saved_model(factory)

    def make(target: Path) -> None:
        fewclip.load(saved, device="cpu").export_onnx(target, precision)

    return once(factory, f"exported-{precision}", make)


def ood_images(folder: Path, count: int) -> list[str]:
    """Images that are not digits, in many sizes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(5)
    paths = []
    for i in range(count):
        cells = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        path = folder / f"ood-{i}.png"
        Image.fromarray(cells).resize((20 + 3 * i, 90 - i)).save(path)
        paths.append(str(path))
    return paths
