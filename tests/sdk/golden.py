"""The oracle's files and the small CLIP whose weights follow from a rule. No product code copied.

See tests/golden/README.md for the rule.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewclip.backbone import Backbone
from fewclip.loading import wrap

FOLDER = Path(__file__).parents[1] / "golden"


def read(name: str) -> tuple[dict[str, np.ndarray], Any]:
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files if key != "meta"}
        return arrays, json.loads(str(file["meta"]))


def draw(tag: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(zlib.crc32(tag.encode())).standard_normal(shape)


def images(tag: str, n: int) -> torch.Tensor:
    return torch.from_numpy(draw(tag + "images", (n, 3, 64, 64)).astype(np.float32))


def initial(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy((0.02 * draw("init:" + name, shape)).astype(np.float32))


def weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    z = draw(name, shape)
    if name == "logit_scale":
        value = np.asarray(3.0)
    elif name.endswith((".bias", "in_proj_bias")):
        value = 0.05 * z
    elif name.split(".")[-2:-1] and name.split(".")[-2] in (
        "ln_1",
        "ln_2",
        "ln_pre",
        "ln_post",
        "ln_final",
    ):
        value = 1 + 0.1 * z
    elif name == "token_embedding.weight":
        value = 0.5 * z
    elif name.endswith(("positional_embedding", "class_embedding")):
        value = 0.2 * z
    elif name in ("visual.proj", "text_projection"):
        value = z * shape[0] ** -0.5
    else:
        value = z * np.prod(shape[1:]) ** -0.5
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def clip_model(arch: dict[str, int]) -> Any:
    from open_clip.model import CLIP

    clip = CLIP(
        embed_dim=arch["embed"],
        vision_cfg={
            "image_size": arch["image"],
            "patch_size": arch["patch"],
            "width": arch["vw"],
            "layers": arch["vl"],
            "head_width": 64,
        },
        text_cfg={
            "context_length": arch["ctx"],
            "vocab_size": arch["vocab"],
            "width": arch["tw"],
            "layers": arch["tl"],
            "heads": arch["tw"] // 64,
        },
        quick_gelu=True,
    )
    clip.load_state_dict({k: weight(k, tuple(v.shape)) for k, v in clip.state_dict().items()})
    return clip.eval()


def backbone(arch: dict[str, int]) -> Backbone:
    return wrap(clip_model(arch), name="golden", preprocess_cfg={})
