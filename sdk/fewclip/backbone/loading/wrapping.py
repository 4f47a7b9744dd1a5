"""An open_clip model -> a Backbone, with its preprocessing, its tokenizer and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fewclip.backbone.checks import (
    disable_patch_dropout,
    missing_blocks,
    missing_parts,
    read_preprocess,
)
from fewclip.backbone.feature_towers import FeatureBackbone
from fewclip.backbone.text_tokens import context_length, load_tokenizer, reads_clip_bpe
from fewclip.backbone.towers import Backbone
from fewclip.errors import BackboneError

PLAIN: Mapping[str, Any] = {"vision_cfg": {"layers": 1}}  # the config of a CLIP with ViT blocks


def wrap(
    clip: nn.Module,
    *,
    name: str,
    preprocess_cfg: Mapping[str, Any],
    model_cfg: Mapping[str, Any] | None = None,
    method_defaults: Mapping[str, Mapping[str, Any]] | None = None,
    folder: Path | None = None,
    allow_download: bool = True,
) -> Backbone:
    """An open_clip model -> Backbone; a `FeatureBackbone` if fewclip cannot use its blocks.

    Args:
        model_cfg: open_clip's; None for a plain CLIP, whose modules say it all.
        folder: of a local backbone.
        allow_download: whether a tokenizer's files may be fetched.

    Raises:
        BackboneError: its preprocessing is not supported, or its tokenizer cannot be obtained.
    """
    clip.eval()
    preprocess = read_preprocess(clip, preprocess_cfg, name)
    disable_patch_dropout(clip.visual)
    reason = missing_blocks(model_cfg or PLAIN) or missing_parts(clip)
    if reason is None:
        return Backbone(
            clip,
            name=name,
            weights_hash=_hash(clip, {}),
            preprocess=preprocess,
            method_defaults=method_defaults,
        )
    if model_cfg is None:
        raise BackboneError(f"backbone {name!r} needs its open_clip config: {reason}")
    text_cfg = model_cfg["text_cfg"]
    tokenizer = load_tokenizer(name, text_cfg, folder=folder, allow_download=allow_download)
    return FeatureBackbone(
        clip,
        name=name,
        weights_hash=_hash(clip, model_cfg),
        preprocess=preprocess,
        embed_dim=int(model_cfg["embed_dim"]),
        context_length=context_length(text_cfg),
        tokenizer=tokenizer,
        reads_clip_bpe=reads_clip_bpe(text_cfg),
        reason=reason,
    )


def _hash(clip: Any, model_cfg: Mapping[str, Any]) -> str:
    """sha256 of the weights, and of settings that every answer depends on but no weight shows.

    Args:
        model_cfg: of a model other than plain CLIP; a plain one's blocks say it.
    """
    digest = hashlib.sha256()
    if model_cfg:
        digest.update(json.dumps(model_cfg, sort_keys=True).encode())
    else:
        for tower in (clip.visual.transformer, clip.transformer):
            block = tower.resblocks[0]
            digest.update(f"{type(block.mlp.gelu).__name__} {block.attn.num_heads} ".encode())
    for key, value in sorted(clip.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().reshape(-1).numpy())
    return digest.hexdigest()
