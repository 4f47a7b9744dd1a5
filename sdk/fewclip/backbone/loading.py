"""A backbone's name -> a Backbone: bundled, from open_clip's hub tags, or from a local folder.

Weights are never downloaded unless a name asks for it, and a hub that is out of reach is an
immediate, clear error. What a model allows is in `checks`.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fewclip.backbone.checks import (
    disable_patch_dropout,
    missing_blocks,
    missing_parts,
    read_preprocess,
)
from fewclip.backbone.device import limit_threads
from fewclip.backbone.feature_towers import FeatureBackbone
from fewclip.backbone.open_clip_parts import load_parts
from fewclip.backbone.text_tokens import context_length, load_tokenizer, reads_clip_bpe
from fewclip.backbone.towers import Backbone
from fewclip.errors import BackboneError
from fewclip.hub import client

MICRO = Path(__file__).parents[1] / "micro"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
DEFAULTS_FILE = "fewclip_defaults.json"
WHAT_WORKS = (
    "use 'micro' (bundled), an open_clip model with a tag such as 'ViT-B-16/openai' or "
    f"'ViT-L-14/laion2b_s32b_b82k', or a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
)


_PLAIN: Mapping[str, Any] = {"vision_cfg": {"layers": 1}}


def why_features_only(name: str | os.PathLike[str]) -> str | None:
    """Why methods that need residual blocks cannot have them of this backbone; None when they can.

    Answered from its config, before any weights are read; None too for a name that is not known.
    """
    text = os.fspath(name)
    if text == "micro":
        return None
    if Path(text).is_dir():
        with contextlib.suppress(BackboneError):
            return missing_blocks(_read_config(Path(text))[0])
        return None
    from open_clip import get_model_config

    return missing_blocks(get_model_config(text.partition("/")[0]) or _PLAIN)


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


def _read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's config and the preprocessing's."""
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise BackboneError(f"backbone folder {folder} has no {file}; {WHAT_WORKS}")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        model_cfg = dict(config["model_cfg"])
        for part in ("vision_cfg", "text_cfg"):
            model_cfg[part] = dict(model_cfg[part])
        return model_cfg, dict(config.get("preprocess_cfg", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise BackboneError(f"{folder / CONFIG_FILE} is no open_clip config ({error})") from error


def _load_folder(folder: Path, name: str) -> Backbone:
    model_cfg, preprocess_cfg = _read_config(folder)
    clip = _filled(folder, name, model_cfg)
    defaults = folder / DEFAULTS_FILE
    options = json.loads(defaults.read_text("utf-8")) if defaults.is_file() else {}
    return wrap(
        clip,
        name=name,
        model_cfg=model_cfg,
        preprocess_cfg=preprocess_cfg,
        method_defaults=options,
        folder=folder,
    )


def _filled(folder: Path, name: str, model_cfg: Mapping[str, Any]) -> nn.Module:
    """The config's model with the folder's weights; built of open_clip's parts where they do."""
    from safetensors.torch import load_file

    try:
        state = {
            k: v.float() if v.is_floating_point() else v
            for k, v in load_file(folder / WEIGHTS_FILE).items()
        }
    except Exception as error:
        raise BackboneError(
            f"{folder / WEIGHTS_FILE} cannot be read: {_first_line(error)}; copy it again"
        ) from error
    clip = _built(folder, name, model_cfg)
    if missing_blocks(model_cfg) is not None:
        state = _converted(clip, state)
    differing = _differences(clip.state_dict(), state)
    if differing:
        raise BackboneError(
            f"{folder / WEIGHTS_FILE} does not fit {CONFIG_FILE}: {differing}; "
            "both must come from the same model"
        )
    # The file's own tensors become the parameters: the weights exist once.
    clip.load_state_dict(state, strict=True, assign=True)
    return clip


def _converted(clip: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What open_clip does to weight files of other projects and of older versions."""
    from open_clip.convert import convert_state_dict

    state = convert_state_dict(clip, state)
    state.pop("text.transformer.embeddings.position_ids", None)
    for key in ("logit_scale", "logit_bias"):
        own = getattr(clip, key)
        if key in state and own is not None:
            state[key] = state[key].reshape(own.shape)
    return state


def _built(folder: Path, name: str, model_cfg: Mapping[str, Any]) -> nn.Module:
    """The config's model without its weights."""
    cfg = copy.deepcopy(dict(model_cfg))
    try:
        if missing_blocks(cfg) is None:
            cfg.pop("custom_text", None)
            with _Unfilled():
                built: nn.Module = load_parts().clip(**cfg)
            return built
        with client.offline():
            return _any_model(cfg, folder)
    except Exception as error:
        if (cfg["text_cfg"].get("hf_model_name")) and find_spec("transformers") is None:
            raise BackboneError(
                f"backbone {name!r} has a text tower of Hugging Face, which needs another "
                "package: pip install transformers"
            ) from error
        raise BackboneError(
            f"backbone {name!r} cannot be built from {folder / CONFIG_FILE}: {_first_line(error)}; "
            + WHAT_WORKS
        ) from error


def _any_model(cfg: dict[str, Any], folder: Path) -> nn.Module:
    """open_clip's class for a config of any kind, as its `create_model` chooses it."""
    from open_clip import CLIP, CoCa, CustomTextCLIP

    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False
    if text.get("hf_model_name"):
        text["hf_model_pretrained"] = False
        own = folder / str(text["hf_model_name"])  # a text tower's config beside the weights
        text["hf_model_name"] = str(own) if own.is_dir() else text["hf_model_name"]
    custom = cfg.pop("custom_text", False) or text.get("hf_model_name")
    kind = CLIP if not custom else CoCa if "multimodal_cfg" in cfg else CustomTextCLIP
    model: nn.Module = kind(**cfg)
    return model


def _differences(model: Mapping[str, torch.Tensor], file: Mapping[str, torch.Tensor]) -> str:
    """How a weight file differs from its model, in one line; empty when it fits."""
    missing, extra = [k for k in model if k not in file], [k for k in file if k not in model]
    other = [k for k in model if k in file and model[k].shape != file[k].shape]
    said = []
    if other:
        key = other[0]
        shapes = f"{tuple(file[key].shape)}, not {tuple(model[key].shape)}"
        said.append(f"{len(other)} tensors have another shape (first {key}: {shapes})")
    said += [f"{len(missing)} tensors are missing (first {missing[0]})"] if missing else []
    said += [f"{len(extra)} tensors are not the model's (first {extra[0]})"] if extra else []
    return ", ".join(said)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
    config = open_clip.get_pretrained_cfg(model, tag) or {}
    if not client.weights_cached(config):
        if not allow_download:
            raise BackboneError(
                f"the weights of {name!r}, which the model was made with, are not in the local "
                "cache, and a model that is loaded downloads nothing unasked; allow it with "
                "--allow-download (in Python: load(..., allow_download=True))"
            )
        _check_reachable(name, config)
    try:
        with contextlib.nullcontext() if allow_download else client.offline():
            clip = open_clip.create_model(
                model,
                pretrained=tag,
                force_quick_gelu=bool(config.get("quick_gelu", False)),
                require_pretrained=True,
            )
    except (RuntimeError, OSError) as error:
        raise BackboneError(
            f"the weights of {name!r} could not be loaded: {_first_line(error)}; "
            f"check the connection, or give a local folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from error
    return wrap(
        clip.float(),
        name=name,
        model_cfg=open_clip.get_model_config(model),
        preprocess_cfg=clip.visual.preprocess_cfg,
        allow_download=allow_download,
    )


def _check_reachable(name: str, config: Mapping[str, Any]) -> None:
    reason = client.unreachable("" if config.get("hf_hub") else str(config.get("url", "")))
    if reason is not None:
        raise BackboneError(
            f"the weights of {name!r} are not in the local cache and {reason}; connect once to "
            f"fetch them, give a local folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or use 'micro'"
        )


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
    """An open_clip model -> Backbone; a `FeatureBackbone` where its blocks are not fewclip's.

    Args:
        model_cfg: open_clip's; None for a plain CLIP, which says everything itself.
        folder: of a local backbone.
        allow_download: of a tokenizer's files.

    Raises:
        BackboneError: its images or its tokenizer are not to be had.
    """
    clip.eval()
    preprocess = read_preprocess(clip, preprocess_cfg, name)
    disable_patch_dropout(clip.visual)
    reason = missing_blocks(model_cfg or _PLAIN) or missing_parts(clip)
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
    """sha256 of the weights, and of what no weight shows but every answer depends on.

    Args:
        model_cfg: of a model that is no plain CLIP; of one that is, its blocks say it.
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
