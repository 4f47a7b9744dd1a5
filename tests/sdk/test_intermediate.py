"""Skip Tuning: what it sees halfway up the image tower, and the strangers that this tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewclip
from fewclip.ood import OODScore
from fewclip.preprocess import preprocess
from fewclip.samples import digits, surfaces


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.png"))


def test_the_middle_is_the_mean_patch_token_between_the_halves(
    tuned: fewclip.Classifier, photos: Path
) -> None:
    seen: list[torch.Tensor] = []

    def keep(module: Any, arguments: Any, output: torch.Tensor) -> None:
        seen.append(output)

    paths = pictures(photos)[:3]
    pixels = torch.from_numpy(preprocess(paths, tuned.card.preprocessing))
    visual = tuned.backbone.clip.visual
    hook = visual.transformer.resblocks[3].register_forward_hook(keep)  # the fourth of eight
    try:
        with torch.inference_mode():
            plain = visual(pixels)
    finally:
        hook.remove()
    with torch.inference_mode():
        features, middle = tuned.method.features_and_intermediate(pixels)
    assert middle is not None
    torch.testing.assert_close(features, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(middle, seen[0][:, 1:].mean(1), rtol=1e-4, atol=1e-5)
    ood_features = tuned.ood_features(paths)
    np.testing.assert_array_equal(ood_features[:, :256], tuned.embed(paths))
    unit = torch.nn.functional.normalize(middle, dim=-1).numpy()
    np.testing.assert_allclose(ood_features[:, 256:], unit, rtol=1e-5, atol=1e-6)


def test_other_methods_look_at_features_only(tuned_dept: fewclip.Classifier, photos: Path) -> None:
    paths = pictures(photos)[:3]
    np.testing.assert_array_equal(tuned_dept.ood_features(paths), tuned_dept.embed(paths))


@pytest.mark.slow
def test_skip_tuning_tells_strangers_that_its_features_do_not(tmp_path: Path) -> None:
    for label in surfaces.PHRASES:
        (tmp_path / label).mkdir()
        for i in range(32):
            surfaces.draw(label, i).save(tmp_path / label / f"{i:02}.png")
    clf = fewclip.adapt(
        tmp_path, classes=surfaces.PHRASES, crop_area=0.5, device="cpu", progress=False
    )
    own = [surfaces.draw(label, 100 + i) for label in surfaces.PHRASES for i in range(20)]
    strangers = [digits.draw(label, i) for label in digits.PHRASES for i in range(10)]
    accepted = np.mean([p.known for p in clf.predict(own)])
    refused = np.mean([not p.known for p in clf.predict(strangers)])
    assert accepted > 0.8
    assert refused > 0.9
    train = [p for p in pictures(tmp_path) if int(p.stem) < 16]
    labels = np.array([clf.classes.index(p.parent.name) for p in train])
    features = OODScore.fit(clf.embed(train), labels)
    bound = np.quantile(features.score(clf.embed(own)), 1 - accepted)
    assert (features.score(clf.embed(strangers)) < bound).mean() < 0.5, "features alone do not"
