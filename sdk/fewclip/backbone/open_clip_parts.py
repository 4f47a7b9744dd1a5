"""open_clip's CLIP and its blocks, without the rest of open_clip. Not a copy: its own source files.

`import open_clip` pulls in torchvision, timm and torch's compiler: most of the time that loading a
saved model takes from cold, and a quarter of a gigabyte, for towers and transforms that no ViT
needs. Here `open_clip/model.py` and `open_clip/transformer.py` run under a name of their own, with
placeholders for the towers that `loading` refuses anyway. If a version of open_clip does not allow
that, or open_clip is already imported, the package itself is used.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

ALIAS = "fewclip.backbone.open_clip_light"
# Module -> what `model.py` and `transformer.py` import from it and a plain ViT never calls.
_PLACEHOLDERS = {
    "hf_model": ("HFTextEncoder",),
    "modified_resnet": ("ModifiedResNet",),
    "timm_model": ("TimmModel",),
    "utils": ("feature_take_indices", "freeze_batch_norm_2d"),
}


class Parts(NamedTuple):
    """The classes that a supported model is built from."""

    clip: type[Any]
    image_tower: type[Any]
    block: type[Any]


def load_parts() -> Parts:
    """The classes to build a model with: the light ones unless open_clip is loaded already."""
    if "open_clip" not in sys.modules:
        light = _light()
        if light is not None:
            return light
    return _parts("open_clip")


def parts_of(clip: Any) -> Parts:
    """The classes that a given model may be made of: open_clip's, or the light ones."""
    light = _light() if type(clip).__module__.startswith(ALIAS) else None
    return _parts("open_clip") if light is None else light


def _parts(package: str) -> Parts:
    model = importlib.import_module(f"{package}.model")
    transformer = importlib.import_module(f"{package}.transformer")
    return Parts(model.CLIP, transformer.VisionTransformer, transformer.ResidualAttentionBlock)


@functools.cache
def _light() -> Parts | None:
    """None if this version of open_clip needs more of itself than the placeholders provide."""
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'open_clip'", name="open_clip")
    package = types.ModuleType(ALIAS)
    package.__path__ = [str(Path(found.origin).parent)]
    sys.modules[ALIAS] = package
    for name, members in _PLACEHOLDERS.items():
        sys.modules[f"{ALIAS}.{name}"] = _placeholder(name, members)
    try:
        return _parts(ALIAS)
    except (ImportError, AttributeError):
        for name in [n for n in sys.modules if n.startswith(ALIAS)]:
            del sys.modules[name]
        return None


def _placeholder(name: str, members: Iterable[str]) -> types.ModuleType:
    module = types.ModuleType(f"{ALIAS}.{name}")
    for member in members:
        setattr(module, member, type(member, (), {}))
    if name == "utils":
        vars(module)["to_2tuple"] = _pair
    return module


def _pair(size: Any) -> tuple[Any, Any]:
    """(n, n) for a number n; a pair as it is."""
    return tuple(size) if isinstance(size, Iterable) else (size, size)
