"""A backbone from one of open_clip's pretrained tags, whose weights come from the Hub or its cache.

An unreachable Hub is an immediate, clear error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from fewclip.backbone.loading.names import LOCAL_FOLDER, WHAT_WORKS
from fewclip.backbone.loading.wrapping import wrap
from fewclip.backbone.towers import Backbone
from fewclip.errors import BackboneError, first_line
from fewclip.hub import client


def load_pretrained(name: str, allow_download: bool) -> Backbone:
    """The backbone that an open_clip name with a tag refers to.

    Raises:
        BackboneError: no such model or tag, or its weights cannot be obtained.
    """
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
                "cache, and loading a model downloads nothing unless asked; allow it with "
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
            f"the weights of {name!r} could not be loaded: {first_line(error)}; "
            f"check the connection, or give {LOCAL_FOLDER}"
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
            f"fetch them, give {LOCAL_FOLDER}, or use 'micro'"
        )
