"""A backbone, tuned or not -> the two files that open_clip loads a model from. It loads none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewclip.backbone.loading import MICRO
from fewclip.backbone.towers import Backbone
from fewclip.contract import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
from fewclip.model_folder import tensor_file


def write_open_clip(folder: Path, backbone: Backbone) -> dict[str, Path]:
    """Write open_clip's config and the weights as they are now, {name: file}.

    `open_clip.create_model("local-dir:FOLDER")`, or from the Hub "hf-hub:owner/name", then has the
    same towers.
    """
    files = {name: folder / name for name in (OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS)}
    config = {"model_cfg": _model_config(backbone), "preprocess_cfg": _preprocess_config(backbone)}
    files[OPEN_CLIP_CONFIG].write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    weights = {name: value.contiguous() for name, value in backbone.clip.state_dict().items()}
    tensor_file.write(files[OPEN_CLIP_WEIGHTS], weights, {"format": "pt"})
    return files


def _model_config(backbone: Backbone) -> dict[str, Any]:
    source = MICRO if backbone.name == "micro" else Path(backbone.name)
    if source.is_dir():
        config = dict(json.loads((source / OPEN_CLIP_CONFIG).read_text("utf-8"))["model_cfg"])
    else:
        import open_clip

        config = dict(open_clip.get_model_config(backbone.name.partition("/")[0]) or {})
    # A pretrained tag may have set it; the model's own config does not say so.
    activation = backbone.clip.visual.transformer.resblocks[0].mlp.gelu
    return config | {"quick_gelu": type(activation).__name__ == "QuickGELU"}


def _preprocess_config(backbone: Backbone) -> dict[str, Any]:
    spec = backbone.preprocess
    return {
        "size": spec.size,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "resize_mode": spec.resize_mode,
    }
