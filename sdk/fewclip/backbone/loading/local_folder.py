"""A backbone from a folder with open_clip's config and the weights. No network."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fewclip.backbone.checks import missing_blocks
from fewclip.backbone.loading.names import DEFAULTS_FILE, WHAT_WORKS
from fewclip.backbone.loading.wrapping import wrap
from fewclip.backbone.open_clip_parts import load_parts
from fewclip.backbone.towers import Backbone
from fewclip.contract import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
from fewclip.errors import BackboneError, MissingExtraError, first_line
from fewclip.hub import client


def read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's config and its preprocessing config.

    Raises:
        BackboneError: a file is missing, or the config is not one of open_clip's.
    """
    for file in (OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS):
        if not (folder / file).is_file():
            raise BackboneError(f"backbone folder {folder} has no {file}; {WHAT_WORKS}")
    try:
        config = json.loads((folder / OPEN_CLIP_CONFIG).read_text("utf-8"))
        model_cfg = dict(config["model_cfg"])
        for part in ("vision_cfg", "text_cfg"):
            model_cfg[part] = dict(model_cfg[part])
        return model_cfg, dict(config.get("preprocess_cfg", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise BackboneError(
            f"{folder / OPEN_CLIP_CONFIG} is not an open_clip config ({error})"
        ) from error


def load_folder(folder: Path, name: str) -> Backbone:
    """The backbone of a folder with config and weights."""
    model_cfg, preprocess_cfg = read_config(folder)
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
    """The config's model with the folder's weights; from open_clip's parts if those suffice."""
    from safetensors.torch import load_file

    try:
        state = {
            k: v.float() if v.is_floating_point() else v
            for k, v in load_file(folder / OPEN_CLIP_WEIGHTS).items()
        }
    except Exception as error:
        raise BackboneError(
            f"{folder / OPEN_CLIP_WEIGHTS} cannot be read: {first_line(error)}; copy it again"
        ) from error
    clip = _built(folder, name, model_cfg)
    if missing_blocks(model_cfg) is not None:
        state = _converted(clip, state)
    differing = _differences(clip.state_dict(), state)
    if differing:
        raise BackboneError(
            f"{folder / OPEN_CLIP_WEIGHTS} does not fit {OPEN_CLIP_CONFIG}: {differing}; "
            "both must come from the same model"
        )
    # The file's own tensors become the parameters: no second copy of the weights.
    clip.load_state_dict(state, strict=True, assign=True)
    return clip


def _converted(clip: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict after open_clip's conversions for other projects' and older files."""
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
            return _foreign_model(cfg, folder)
    except Exception as error:
        if (cfg["text_cfg"].get("hf_model_name")) and find_spec("transformers") is None:
            raise MissingExtraError(
                f"backbone {name!r} has a Hugging Face text tower, which", "transformers"
            ) from error
        raise BackboneError(
            f"backbone {name!r} cannot be built from {folder / OPEN_CLIP_CONFIG}: "
            f"{first_line(error)}; {WHAT_WORKS}"
        ) from error


def _foreign_model(cfg: dict[str, Any], folder: Path) -> nn.Module:
    """A model other than plain CLIP, without what its towers would download."""
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False
    if text.get("hf_model_name"):
        text["hf_model_pretrained"] = False
        own = folder / str(text["hf_model_name"])  # a text tower's config beside the weights
        text["hf_model_name"] = str(own) if own.is_dir() else text["hf_model_name"]
    kind = model_class(cfg)
    cfg.pop("custom_text", None)
    model: nn.Module = kind(**cfg)
    return model


def model_class(cfg: Mapping[str, Any]) -> type[nn.Module]:
    """open_clip's class for a model config, as its `create_model` chooses it."""
    from open_clip import CLIP, CoCa, CustomTextCLIP

    custom = cfg.get("custom_text", False) or cfg["text_cfg"].get("hf_model_name")
    chosen: type[nn.Module] = (
        CLIP if not custom else CoCa if "multimodal_cfg" in cfg else CustomTextCLIP
    )
    return chosen


def _differences(model: Mapping[str, torch.Tensor], file: Mapping[str, torch.Tensor]) -> str:
    """How a weight file differs from its model, in one line; empty when it fits."""
    missing, extra = [k for k in model if k not in file], [k for k in file if k not in model]
    other = [k for k in model if k in file and model[k].shape != file[k].shape]
    found = []
    if other:
        key = other[0]
        shapes = f"{tuple(file[key].shape)}, not {tuple(model[key].shape)}"
        found.append(f"{len(other)} tensors have another shape (first {key}: {shapes})")
    found += [f"{len(missing)} tensors are missing (first {missing[0]})"] if missing else []
    found += [f"{len(extra)} tensors are not the model's (first {extra[0]})"] if extra else []
    return ", ".join(found)


class _Unfilled(TorchFunctionMode):
    """Skips random initialisation: memory that is never written to takes no room.

    The meta device would also work, but what torch runs there imports its compiler, which takes
    longer than everything else when a saved model is loaded from cold.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("normal_", "uniform_"):
            return args[0] if args else (kwargs or {})["tensor"]
        return (torch.empty if name == "randn" else func)(*args, **(kwargs or {}))
