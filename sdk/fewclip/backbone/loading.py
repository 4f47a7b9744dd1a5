"""A backbone's name -> a Backbone: bundled, from open_clip's hub tags, or from a local folder.

Weights are never downloaded unless a name asks for it, and a hub that is out of reach is an
immediate, clear error. What the exact speed-ups need of a model is checked here, once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fewclip.backbone.device import limit_threads
from fewclip.backbone.open_clip_parts import load_parts, parts_of
from fewclip.backbone.towers import EOT_TOKEN, Backbone
from fewclip.contract import Preprocess
from fewclip.errors import BackboneError

MICRO = Path(__file__).parents[1] / "micro"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
DEFAULTS_FILE = "fewclip_defaults.json"
WHAT_WORKS = (
    "use 'micro' (bundled), an open_clip ViT with a tag such as 'ViT-B-16/openai' or "
    f"'ViT-L-14/laion2b_s32b_b82k', or a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
)


def list_backbones() -> list[str]:
    """Names that `load_backbone` resolves: 'micro' and every open_clip ViT with a pretrained tag.

    Local folders work too and are not listed.
    """
    from open_clip import get_model_config, list_pretrained

    names = [
        f"{model}/{tag}"
        for model, tag in list_pretrained()
        if _unsupported_config(get_model_config(model) or {}) is None
    ]
    return ["micro", *names]


def load_backbone(
    name: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    allow_download: bool = True,
) -> Backbone:
    """Load a frozen backbone in eval mode and float32.

    Args:
        allow_download: False for a name that an untrusted card gives: only what is bundled, in a
            local folder or in the hub's cache is taken then, and no server is asked.

    Raises:
        BackboneError: unknown, unsupported, broken, or not to be had offline.
    """
    limit_threads()
    text = os.fspath(name)
    if text == "micro":
        backbone = _load_folder(MICRO, "micro")
    elif Path(text).is_dir():
        backbone = _load_folder(Path(text), text)
    else:
        backbone = _load_tag(text, allow_download)
    return backbone.to(device)


def _load_folder(folder: Path, name: str) -> Backbone:
    from safetensors.torch import load_file

    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise BackboneError(f"backbone folder {folder} has no {file}; {WHAT_WORKS}")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        model_cfg = dict(config["model_cfg"])
        preprocess_cfg = dict(config.get("preprocess_cfg", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise BackboneError(f"{folder / CONFIG_FILE} is no open_clip config ({error})") from error
    reason = _unsupported_config(model_cfg)
    if reason:
        raise BackboneError(f"backbone {name!r} cannot be adapted: {reason}; {WHAT_WORKS}")
    model_cfg.pop("custom_text", None)
    try:
        with _Unfilled():
            clip = load_parts().clip(**model_cfg)
        state = {k: v.float() for k, v in load_file(folder / WEIGHTS_FILE).items()}
        # The file's own tensors become the parameters: the weights exist once.
        clip.load_state_dict(state, strict=True, assign=True)
    except Exception as error:
        raise BackboneError(
            f"{folder / WEIGHTS_FILE} does not fit {CONFIG_FILE}: {error}; "
            "both must come from the same model"
        ) from error
    defaults = folder / DEFAULTS_FILE
    options = json.loads(defaults.read_text("utf-8")) if defaults.is_file() else {}
    return wrap(clip, name=name, preprocess_cfg=preprocess_cfg, method_defaults=options)


class _Unfilled(TorchFunctionMode):
    """Random starts are left out: memory that nobody writes to takes no room.

    The meta device would do as well, but what torch runs there imports its compiler, for more time
    than all else that a saved model costs from cold.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("normal_", "uniform_"):
            return args[0] if args else (kwargs or {})["tensor"]
        return (torch.empty if name == "randn" else func)(*args, **(kwargs or {}))


def _load_tag(name: str, allow_download: bool) -> Backbone:
    import open_clip

    model, _, tag = name.partition("/")
    known = set(open_clip.list_models())
    if model not in known:
        raise BackboneError(f"unknown backbone {name!r}; {WHAT_WORKS}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not tag or open_clip.pretrained._clean_tag(tag) not in tags:
        raise BackboneError(
            f"backbone {name!r} needs one of {model}'s pretrained tags: "
            + ", ".join(f"{model}/{t}" for t in tags)
        )
    reason = _unsupported_config(open_clip.get_model_config(model) or {})
    if reason:
        raise BackboneError(f"backbone {name!r} cannot be adapted: {reason}; {WHAT_WORKS}")
    config = open_clip.get_pretrained_cfg(model, tag) or {}
    if not _cached(config):
        if not allow_download:
            raise BackboneError(
                f"the weights of {name!r}, which the model was made with, are not in the local "
                "cache, and a model that is loaded downloads nothing unasked; allow it with "
                "--allow-download (in Python: load(..., allow_download=True))"
            )
        _check_reachable(name, config)
    try:
        with contextlib.nullcontext() if allow_download else _offline():
            clip = open_clip.create_model(
                model,
                pretrained=tag,
                force_quick_gelu=bool(config.get("quick_gelu", False)),
                require_pretrained=True,
            )
    except (RuntimeError, OSError) as error:
        raise BackboneError(
            f"the weights of {name!r} could not be loaded: {error}; check the connection, or give "
            f"a local folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from error
    return wrap(clip.float(), name=name, preprocess_cfg=clip.visual.preprocess_cfg)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The hub's client asks its server even about files that it has, unless told not to."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _cached(config: Mapping[str, Any]) -> bool:
    """Whether the hub's own cache holds the weights already."""
    from huggingface_hub import try_to_load_from_cache

    repo = str(config.get("hf_hub", "")).split("/")
    if len(repo) < 2:
        return False
    names = [repo[2]] if len(repo) > 2 and repo[2] else []
    names += ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    return any(isinstance(try_to_load_from_cache("/".join(repo[:2]), n), str) for n in names)


def _check_reachable(name: str, config: Mapping[str, Any]) -> None:
    """One short attempt to connect: the hub client alone would retry for most of a minute."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    url = urlsplit(hub if config.get("hf_hub") else str(config.get("url", hub)))
    reason = "offline mode is set (HF_HUB_OFFLINE)"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() not in {"1", "ON", "YES", "TRUE"}:
        way = urlsplit(getproxies().get(url.scheme, url.geturl()))
        try:
            port = way.port or (80 if way.scheme == "http" else 443)
            socket.create_connection((way.hostname or "", port), timeout=5).close()
            return
        except OSError as error:
            reason = f"{way.hostname} cannot be reached ({error})"
    raise BackboneError(
        f"the weights of {name!r} are not in the local cache and {reason}; connect once to fetch "
        f"them, give a local folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or use 'micro'"
    )


def wrap(
    clip: nn.Module,
    *,
    name: str,
    preprocess_cfg: Mapping[str, Any],
    method_defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> Backbone:
    """An open_clip CLIP module -> Backbone, after the checks.

    Raises:
        BackboneError: the model lacks what the towers' interface needs.
    """
    check_supported(clip, name)
    clip.eval()
    height, width = clip.visual.image_size  # type: ignore[union-attr,misc]
    if height != width:
        raise BackboneError(
            f"backbone {name!r} wants {height}x{width} images; only square ones work"
        )
    mode = preprocess_cfg.get("resize_mode", "shortest")
    interpolation = preprocess_cfg.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or interpolation not in ("bicubic", "bilinear"):
        raise BackboneError(
            f"backbone {name!r} wants resize_mode {mode!r} with {interpolation!r}; known are "
            "'shortest' and 'squash' with 'bicubic' or 'bilinear'"
        )
    mean = tuple(preprocess_cfg.get("mean", (0.48145466, 0.4578275, 0.40821073)))
    std = tuple(preprocess_cfg.get("std", (0.26862954, 0.26130258, 0.27577711)))
    pre = Preprocess(size=height, mean=mean, std=std, interpolation=interpolation, resize_mode=mode)
    return Backbone(
        clip,
        name=name,
        weights_hash=_hash(clip),
        preprocess=pre,
        method_defaults=method_defaults,
    )


def check_supported(clip: Any, name: str) -> None:
    """The conditions behind the exact speed-ups, and the parts that methods reach for."""
    parts = parts_of(clip)

    def refuse(reason: str) -> None:
        raise BackboneError(f"backbone {name!r} cannot be adapted: {reason}; {WHAT_WORKS}")

    if not isinstance(clip, parts.clip):
        refuse(f"its text tower is not open_clip's own ({type(clip).__name__})")
    visual: Any = clip.visual
    if not isinstance(visual, parts.image_tower):
        refuse(f"its image tower is a {type(visual).__name__}, not a ViT of residual blocks")
    blocks = [*visual.transformer.resblocks, *clip.transformer.resblocks]
    if any(type(block) is not parts.block for block in blocks):
        refuse("its blocks are not plain pre-norm residual attention blocks")
    if not all(block.attn.batch_first and block.attn.dropout == 0 for block in blocks):
        refuse("its attention drops out weights or is not batch-first")
    if visual.attn_pool is not None or visual.pool_type != "tok" or visual.final_ln_after_pool:
        refuse("its image tower does not read the CLS token after the final norm")
    if not isinstance(visual.patch_dropout, nn.Identity) and visual.patch_dropout.prob > 0:
        visual.patch_dropout = nn.Identity()
    if clip.text_pool_type != "argmax" or clip.attn_mask is None:
        refuse("its text tower is not causal with the EOT token read")
    if not isinstance(clip.text_projection, nn.Parameter) or visual.proj is None:
        refuse("its projections are not plain matrices")
    if clip.logit_bias is not None or clip.logit_scale.dim() != 0:
        refuse("it was trained with a sigmoid loss (logit bias)")
    if clip.vocab_size != EOT_TOKEN + 1:
        refuse(f"its vocabulary has {clip.vocab_size} words, CLIP's BPE has {EOT_TOKEN + 1}")


def _unsupported_config(cfg: Mapping[str, Any]) -> str | None:
    """Why a model of this config cannot be split into residual blocks, None when it can."""
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


def _hash(clip: Any) -> str:
    """sha256 of the weights, and of what no weight shows but every answer depends on."""
    digest = hashlib.sha256()
    for tower in (clip.visual.transformer, clip.transformer):
        block = tower.resblocks[0]
        digest.update(f"{type(block.mlp.gelu).__name__} {block.attn.num_heads} ".encode())
    for key, value in sorted(clip.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().reshape(-1).numpy())
    return digest.hexdigest()
