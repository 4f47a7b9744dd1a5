"""The demo's images: digits equal to scikit-learn's to the pixel, surfaces with visible defects."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks.bundled.make_digits import make_sheet
from fewclip.samples import digits, surfaces

drawn = functools.cache(surfaces.draw)  # where several tests look at the same surfaces


def test_the_sheet_holds_scikit_learns_digits_to_the_pixel() -> None:
    origin = load_digits()
    for number, label in enumerate(digits.NAMES):
        expected = origin.images[origin.target == number] * digits.GREY_STEP
        assert np.array_equal(digits.scans(label), expected)


def test_the_script_makes_the_sheet_that_is_shipped() -> None:
    shipped = np.concatenate([digits.scans(label).reshape(-1) for label in digits.NAMES])
    assert np.asarray(make_sheet()).sum() == shipped.sum()


def test_origin_and_licence_travel_with_the_digits() -> None:
    text = Path(digits.SHEET).with_name("README.md").read_text("utf-8")
    assert "CC BY 4.0" in text
    assert "10.24432/C50P49" in text


def test_a_digit_is_drawn_once_under_each_index() -> None:
    drawn = {digits.draw("seven", i).tobytes() for i in range(len(digits.scans("seven")))}
    assert len(drawn) == len(digits.scans("seven")) == 179
    image = digits.draw("seven", 0)
    assert (image.mode, image.size) == ("RGB", (digits.SIZE, digits.SIZE))


@pytest.mark.parametrize("label", surfaces.PHRASES)
def test_a_surface_follows_from_label_and_seed(label: str) -> None:
    image = surfaces.draw(label, 7)
    assert (image.mode, image.size) == ("RGB", (surfaces.SIZE, surfaces.SIZE))
    assert image.tobytes() == surfaces.draw(label, 7).tobytes()
    assert len({surfaces.draw(label, seed).tobytes() for seed in range(20)}) == 20


def test_surfaces_vary_in_light_and_colour() -> None:
    means = np.array(
        [np.asarray(drawn("whole", s)).mean(axis=(0, 1)) / 255 for s in range(40)]
    )  # (40, 3)
    assert means.mean(axis=1).std() > 0.08
    assert (means.max(axis=1) - means.min(axis=1)).std() > 0.05


def test_light_and_colour_do_not_tell_the_label() -> None:
    """The nearest class by mean colour and contrast is right little more often than chance."""

    def features(label: str, seeds: range) -> np.ndarray:
        images = [np.asarray(drawn(label, s), dtype=float) / 255 for s in seeds]
        return np.array([image.mean(axis=(0, 1)) for image in images])  # (n, 3)

    centres = np.array([features(label, range(20)).mean(axis=0) for label in surfaces.PHRASES])
    right = []
    for i, label in enumerate(surfaces.PHRASES):
        distance = np.linalg.norm(features(label, range(20, 40))[:, None] - centres, axis=-1)
        right.append((distance.argmin(axis=1) == i).mean())
    assert np.mean(right) < 0.4  # chance is 0.2


def test_every_defect_can_be_seen_at_the_backbones_size() -> None:
    """Steepest edges in 64 x 64 pixels: a defect has some that no sound surface has."""

    def edges(label: str) -> Any:
        images = [drawn(label, s).convert("L").resize((64, 64)) for s in range(30)]
        grey = np.array([np.asarray(image, dtype=float) / 255 for image in images])
        steepness = np.hypot(*np.gradient(grey, axis=(1, 2)))  # (30, 64, 64)
        return np.quantile(steepness, 0.99, axis=(1, 2))

    sound = edges("whole")
    for label in surfaces.PHRASES:
        if label != "whole":
            assert np.median(edges(label)) > 2 * np.median(sound), label
            assert edges(label).min() > np.median(sound), label
