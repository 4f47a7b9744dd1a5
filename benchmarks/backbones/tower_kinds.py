"""Small local backbone folders with random weights, one for each kind of tower in open_clip."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fewclip.backbone.loading import model_class
from fewclip.contract import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS

_BPE = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 2}
_VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
_TIMM = {"timm_model_pretrained": False}


def _cfg(vision: dict[str, Any], text: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    return {"embed_dim": 32, "vision_cfg": vision, "text_cfg": {**_BPE, **(text or {})}, **top}


def _timm(name: str, size: int, pool: str, proj: str | None, **more: Any) -> dict[str, Any]:
    fields = {"timm_model_name": name, "image_size": size, "timm_pool": pool, "timm_proj": proj}
    return {**fields, **_TIMM, **more}


CONFIGS: dict[str, dict[str, Any]] = {
    "resnet": _cfg({"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16}),
    "convnext": _cfg(_timm("convnext_atto", 64, "", "linear")),
    "fastvit": _cfg(
        _timm("fastvit_t8", 64, "avg", None), {"no_causal_mask": True}, custom_text=True
    ),
    "siglip": _cfg(
        _timm("test_vit2", 64, "avg", "linear"),
        {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        custom_text=True,
        init_logit_bias=-10,
    ),
    "eva": _cfg(_timm("eva02_tiny_patch14_224", 224, "token", None), custom_text=True),
    "pe-core": _cfg(_timm("vit_pe_core_tiny_patch16_384", 384, "map", None), custom_text=True),
    "coca": _cfg(
        {**_VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        {"embed_cls": True, "output_tokens": True},
        custom_text=True,
        multimodal_cfg={**_BPE, "attn_pooler_heads": 1, "mlp_ratio": 4},
    ),
    "clipa": _cfg({**_VIT, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}),
}
WITH_INTERMEDIATE = {"siglip", "eva", "pe-core", "coca", "clipa"}


def write(folder: Path, kind: str, **changes: Any) -> Path:
    """A backbone folder of a kind; `changes` replace parts of its config."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    cfg = {**copy.deepcopy(CONFIGS[kind]), **changes}
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"}
    preprocess["interpolation"] = "bilinear"
    text = json.dumps({"model_cfg": cfg, "preprocess_cfg": preprocess})
    (folder / OPEN_CLIP_CONFIG).write_text(text, "utf-8")
    own = copy.deepcopy(cfg)
    kind_of_model = model_class(own)
    own.pop("custom_text", None)
    model = kind_of_model(**own)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / OPEN_CLIP_WEIGHTS
    )
    return folder
