"""Views resampled by torch are those that Pillow resamples, to one level of 255."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from fewclip.contract import Preprocess
from fewclip.preprocess import Pixels, augment
from fewclip.samples import surfaces
from fewclip.training.device_views import augment_on_device
from fewclip.training.loop import TrainingSet

CPU = torch.device("cpu")
SPEC = Preprocess(size=64, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))
SIZES = (30, 41), (130, 97), (211, 300), (640, 480)  # enlarged, and reduced up to ten times


def pictures() -> list[Pixels]:
    """Drawn surfaces with sharp defects, one of each size."""
    drawn = [surfaces.draw(label, 3) for label in list(surfaces.PHRASES)[: len(SIZES)]]
    return [
        np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        for image, size in zip(drawn, SIZES, strict=True)
    ]


def generators() -> list[np.random.Generator]:
    return [np.random.default_rng([7, k]) for k in range(len(SIZES))]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("crop_area", "flip"), [(0.08, True), (0.6, False)])
def test_torch_resamples_as_pillow_does(interpolation: str, crop_area: float, flip: bool) -> None:
    spec = dataclasses.replace(SPEC, interpolation=interpolation)
    found = augment_on_device(
        pictures(), spec, generators(), CPU, crop_area=crop_area, flip=flip
    ).numpy()
    wanted = np.stack(
        [
            augment(pixels, spec, rng, crop_area=crop_area, flip=flip)
            for pixels, rng in zip(pictures(), generators(), strict=True)
        ]
    )
    levels = 255 * np.array(spec.std, np.float32)[:, None, None]
    apart = np.abs(found - wanted) * levels
    assert apart.max() < 1.01
    assert apart.mean() < 0.25


def test_training_away_from_the_cpu_sees_the_same_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    images = TrainingSet(pictures().__getitem__, [0, 1, 2, 0], SPEC, 0.3, True)
    on_cpu = images.views(range(4), seed=1, epoch=2, device=CPU)
    seen = []

    def here(
        pixels: list[Pixels],
        spec: Preprocess,
        rngs: list[np.random.Generator],
        device: torch.device,
        *,
        crop_area: float,
        flip: bool,
    ) -> torch.Tensor:
        seen.append(device)
        return augment_on_device(pixels, spec, rngs, CPU, crop_area=crop_area, flip=flip)

    monkeypatch.setattr("fewclip.training.loop.augment_on_device", here)
    elsewhere = images.views(range(4), seed=1, epoch=2, device=torch.device("cuda"))
    assert seen == [torch.device("cuda")]
    assert (on_cpu - elsewhere).abs().max() < 1.01 / (255 * 0.26)
