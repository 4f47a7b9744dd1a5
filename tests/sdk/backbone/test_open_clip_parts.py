"""A backbone without the rest of open_clip: what is imported, and that it is the same model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip.model
import torch

from fewclip.backbone import Backbone, load_backbone

PROMPTS = ["a cat", "a dog"]

# Importing torch's compiler takes more memory than gradients do.
SCRIPT = f"""
import sys
import numpy, torch
from fewclip.backbone import load_backbone
from fewclip.training.optimizer import SGDInBackward
light = load_backbone("micro")
pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    image = light.image_features(light.image_embed(pixels))
    text = light.text_features(light.text_embed(light.tokenize({PROMPTS})))
numpy.savez(sys.argv[1], pixels=pixels, image=image, text=text, mask=light.clip.attn_mask)
weight = torch.nn.Parameter(torch.ones(3))
optimizer = SGDInBackward([{{"params": [weight], "lr": 0.1}}], momentum=0.9, weight_decay=0.0)
optimizer.zero_grad()
weight.sum().backward()
optimizer.load_state_dict(optimizer.state_dict())
assert weight[0] != 1
heavy = {{"open_clip", "torchvision", "timm", "torch._dynamo", "transformers"}} & set(sys.modules)
assert not heavy, heavy
print(light.hash)
"""


def features(backbone: Backbone, pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        image = backbone.image_features(backbone.image_embed(pixels))
        text = backbone.text_features(backbone.text_embed(backbone.tokenize(PROMPTS)))
    return image.numpy(), text.numpy()


def test_a_bundled_backbone_needs_neither_torchvision_nor_a_compiler(tmp_path: Path) -> None:
    light = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path / "light.npz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert light.returncode == 0, light.stderr
    full = load_backbone("micro")
    assert type(full.clip) is open_clip.model.CLIP
    assert light.stdout.strip() == full.hash
    with np.load(tmp_path / "light.npz") as found:
        image, text = features(full, torch.from_numpy(found["pixels"]))
        np.testing.assert_allclose(found["image"], image, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["text"], text, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found["mask"], full.clip.attn_mask.numpy())
