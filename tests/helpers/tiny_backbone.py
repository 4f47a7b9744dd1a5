"""A backbone small enough to be made by the dozen, with random weights. No test here."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import nn

from fewclip.contract import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS

TINY = {
    "embed_dim": 32,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": 32,
        "layers": 2,
        "width": 64,
        "head_width": 32,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 32,
        "heads": 1,
        "layers": 2,
    },
}


def config(**changes: Any) -> dict[str, Any]:
    """TINY with `vision__layers=3`-like changes."""
    cfg = copy.deepcopy(TINY)
    for key, value in changes.items():
        part, _, field = key.partition("__")
        if field:
            cfg[f"{part}_cfg"][field] = value  # type: ignore[index]
        else:
            cfg[key] = value
    return cfg


def write(folder: Path, cfg: dict[str, Any], clip: nn.Module | None = None) -> Path:
    """A local backbone folder; weights of `clip`, or random ones of the config."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"model_cfg": cfg, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}})
    (folder / OPEN_CLIP_CONFIG).write_text(text, "utf-8")
    save_file((clip or CLIP(**copy.deepcopy(cfg))).state_dict(), folder / OPEN_CLIP_WEIGHTS)
    return folder
