"""What fewclip can use of an open_clip model: its residual blocks, or its output features alone.

Facts about configs and modules; nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fewclip.backbone.open_clip_parts import parts_of
from fewclip.contract import Preprocess
from fewclip.errors import BackboneError

EOT_TOKEN = 49407


def missing_blocks(cfg: Mapping[str, Any]) -> str | None:
    """Why a model of this config cannot be split into residual blocks; None when it can."""
    vision, text = cfg.get("vision_cfg", {}), cfg.get("text_cfg", {})
    if vision.get("timm_model_name"):
        return f"its image tower comes from timm ({vision['timm_model_name']})"
    if not isinstance(vision.get("layers"), int):
        return "its image tower is a ResNet"
    if text.get("hf_model_name"):
        return f"its text tower comes from Hugging Face ({text['hf_model_name']})"
    if cfg.get("multimodal_cfg") or cfg.get("custom_text") or "init_logit_bias" in cfg:
        return "it is not a plain CLIP (CoCa, SigLIP or a custom text tower)"
    if text.get("no_causal_mask") or text.get("pool_type", "argmax") != "argmax":
        return "its text tower is not causal with the EOT token read"
    if vision.get("attentional_pool") or vision.get("pool_type", "tok") != "tok":
        return "its image tower does not read the CLS token"
    return None


def missing_parts(clip: Any) -> str | None:
    """The same for a built model: what the exact speed-ups and the methods' prompts rely on."""
    parts = parts_of(clip)
    if not isinstance(clip, parts.clip):
        return f"its text tower is not open_clip's own ({type(clip).__name__})"
    visual: Any = clip.visual
    if not isinstance(visual, parts.image_tower):
        return f"its image tower is a {type(visual).__name__}, not a ViT of residual blocks"
    blocks = [*visual.transformer.resblocks, *clip.transformer.resblocks]
    if any(type(block) is not parts.block for block in blocks):
        return "its blocks are not plain pre-norm residual attention blocks"
    if not all(block.attn.batch_first and block.attn.dropout == 0 for block in blocks):
        return "its attention drops out weights or is not batch-first"
    if visual.attn_pool is not None or visual.pool_type != "tok" or visual.final_ln_after_pool:
        return "its image tower does not read the CLS token after the final norm"
    if clip.text_pool_type != "argmax" or clip.attn_mask is None:
        return "its text tower is not causal with the EOT token read"
    if not isinstance(clip.text_projection, nn.Parameter) or visual.proj is None:
        return "its projections are not plain matrices"
    if clip.logit_bias is not None or clip.logit_scale.dim() != 0:
        return "it was trained with a sigmoid loss (logit bias), or its logit scale is not a scalar"
    if clip.vocab_size != EOT_TOKEN + 1:
        return f"its vocabulary has {clip.vocab_size} words, CLIP's BPE has {EOT_TOKEN + 1}"
    return None


def disable_patch_dropout(visual: Any) -> None:
    """Methods call `train()` while they train; every patch must still be read."""
    dropout = getattr(visual, "patch_dropout", None)
    if dropout is not None and not isinstance(dropout, nn.Identity):
        visual.patch_dropout = nn.Identity()


def read_preprocess(clip: Any, cfg: Mapping[str, Any], name: str) -> Preprocess:
    """open_clip's preprocessing config -> ours.

    Raises:
        BackboneError: the images are not square, or the resize mode is unknown.
    """
    size = clip.visual.image_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    if height != width:
        raise BackboneError(
            f"backbone {name!r} wants {height}x{width} images; only square ones work"
        )
    mode = cfg.get("resize_mode", "shortest")
    interpolation = cfg.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or interpolation not in ("bicubic", "bilinear"):
        raise BackboneError(
            f"backbone {name!r} wants resize_mode {mode!r} with {interpolation!r}; known are "
            "'shortest' and 'squash' with 'bicubic' or 'bilinear'"
        )
    mean = tuple(cfg.get("mean", (0.48145466, 0.4578275, 0.40821073)))
    std = tuple(cfg.get("std", (0.26862954, 0.26130258, 0.27577711)))
    return Preprocess(
        size=height, mean=mean, std=std, interpolation=interpolation, resize_mode=mode
    )
