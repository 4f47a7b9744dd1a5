"""A backbone without the rest of open_clip: what is imported, and that it is the same model."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import torch
from fewclip.backbone import load_backbone
light = load_backbone("micro")
heavy = {"open_clip", "torchvision", "timm", "torch._dynamo", "transformers"} & set(sys.modules)
assert not heavy, heavy
import open_clip.model
full = load_backbone("micro")
assert type(full.clip) is open_clip.model.CLIP
assert type(light.clip) is not type(full.clip)
assert light.hash == full.hash
pixels = torch.randn(2, 3, 64, 64)
prompts = light.tokenize(["a cat", "a dog"])
with torch.no_grad():
    one, two = (b.image_features(b.image_embed(pixels)) for b in (light, full))
    assert torch.equal(one, two)
    one, two = (b.text_features(b.text_embed(prompts)) for b in (light, full))
    assert torch.equal(one, two)
assert torch.equal(light.clip.attn_mask, full.clip.attn_mask)
print("same")
"""


def test_a_bundled_backbone_needs_neither_torchvision_nor_a_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "same", done.stderr
