"""What the SDK's tests share: real handwritten digits, and models really tuned on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import once
from handwritten_digits import PHRASES, write_digits

import fewclip


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 digits of each of three classes."""
    return write_digits(tmp_path_factory.mktemp("photos") / "digits", 0, 14)


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 other digits of each of the three classes."""
    return write_digits(tmp_path_factory.mktemp("held") / "out", 100, 20)


@pytest.fixture(scope="session")
def zero_shot_accuracy(held_out: Path) -> float:
    """Of the backbone as it is, on `held_out`: what methods are to improve on."""
    return fewclip.zero_shot(PHRASES, device="cpu").evaluate(held_out).accuracy


@pytest.fixture(scope="session")
def tuned(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> fewclip.Classifier:
    """Skip Tuning, calibrated on what eight shots left over; adapted once for all processes."""

    def make(target: Path) -> None:
        clf = fewclip.adapt(
            photos,
            method="skip-tuning",
            shots=8,
            epochs=8,
            classes=PHRASES,
            device="cpu",
            progress=False,
        )
        clf.save(target)

    return fewclip.load(once(tmp_path_factory, "tuned", make), device="cpu")


@pytest.fixture(scope="session")
def tuned_dept(photos: Path) -> fewclip.Classifier:
    """KgCoOp with DePT, a few epochs, without calibration."""
    return fewclip.adapt(
        photos,
        method="dept",
        shots=8,
        epochs=4,
        classes=PHRASES,
        val=0,
        device="cpu",
        progress=False,
    )
