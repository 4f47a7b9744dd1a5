"""Intermediate features: what they are, and the out-of-distribution images that they reveal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fewclip
from fewclip.preprocess import preprocess
from fewclip.samples import digits, surfaces


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.png"))


@pytest.mark.parametrize("fixture", ["tuned", "tuned_dept"])
def test_it_is_what_the_patch_tokens_look_like_on_the_way_up(
    fixture: str, photos: Path, request: pytest.FixtureRequest
) -> None:
    clf: fewclip.Classifier = request.getfixturevalue(fixture)
    seen: dict[int, torch.Tensor] = {}
    blocks = clf.backbone.clip.visual.transformer.resblocks
    hooks = [
        blocks[k - 1].register_forward_hook(lambda _m, _a, out, k=k: seen.__setitem__(k, out))
        for k in (2, 4, 6)
    ]
    pixels = torch.from_numpy(preprocess(pictures(photos)[:3], clf.card.preprocessing))
    try:
        with torch.inference_mode():
            plain = clf.backbone.clip.visual(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    with torch.inference_mode():
        features, intermediate = clf.method.features_and_intermediate(pixels)
    assert intermediate is not None
    torch.testing.assert_close(features, plain, rtol=1e-4, atol=1e-5)
    low, half, high = (seen[k][:, 1:] for k in (2, 4, 6))
    deviation = half.std(1, correction=0)
    wanted = torch.cat([low.mean(1), half.mean(1), high.mean(1), deviation, half.amax(1)], 1)
    torch.testing.assert_close(intermediate, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_skip_tuning_refuses_images_of_another_kind(tmp_path: Path) -> None:
    for label in surfaces.PHRASES:
        (tmp_path / label).mkdir()
        for i in range(32):
            surfaces.draw(label, i).save(tmp_path / label / f"{i:02}.png")
    clf = fewclip.adapt(
        tmp_path,
        method="skip-tuning",
        classes=surfaces.PHRASES,
        crop_area=0.5,
        device="cpu",
        progress=False,
    )
    own = [surfaces.draw(label, 100 + i) for label in surfaces.PHRASES for i in range(20)]
    outside = [digits.draw(label, i) for label in digits.PHRASES for i in range(10)]
    accepted = np.mean([p.known is True for p in clf.predict(own)])
    refused = np.mean([p.known is False for p in clf.predict(outside)])
    assert accepted > 0.8
    assert refused > 0.9
