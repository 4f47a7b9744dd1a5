"""A backbone's name -> its source. Weights are never downloaded unless a name asks for it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

from fewclip.backbone.checks import missing_blocks
from fewclip.backbone.device import limit_threads
from fewclip.backbone.loading.local_folder import load_folder, read_config
from fewclip.backbone.loading.names import MICRO
from fewclip.backbone.loading.pretrained import load_pretrained
from fewclip.backbone.loading.wrapping import PLAIN
from fewclip.backbone.towers import Backbone
from fewclip.errors import BackboneError


def why_features_only(name: str | os.PathLike[str]) -> str | None:
    """Why methods that need residual blocks cannot use this backbone; None when they can.

    Answered from its config, before any weights are read; None for an unknown name too.
    """
    text = os.fspath(name)
    if text == "micro":
        return None
    if Path(text).is_dir():
        with contextlib.suppress(BackboneError):
            return missing_blocks(read_config(Path(text))[0])
        return None
    from open_clip import get_model_config

    return missing_blocks(get_model_config(text.partition("/")[0]) or PLAIN)


def load_backbone(
    name: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    allow_download: bool = True,
) -> Backbone:
    """Load a frozen backbone in eval mode and float32.

    Args:
        allow_download: False for a name from an untrusted card: only what is bundled, in a local
            folder or in the Hub's cache is used then, and no server is contacted.

    Raises:
        BackboneError: it is unknown, unsupported, broken, or not available offline.
        MissingExtraError: its tokenizer needs the 'transformers' extra.
    """
    limit_threads()
    text = os.fspath(name)
    if text == "micro":
        backbone = load_folder(MICRO, "micro")
    elif Path(text).is_dir():
        backbone = load_folder(Path(text), text)
    else:
        backbone = load_pretrained(text, allow_download)
    return backbone.to(device)
