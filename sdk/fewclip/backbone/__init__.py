"""CLIP backbones: open_clip's towers behind one small interface, and where they come from.

`towers` computes features, `loading` turns a name into a `Backbone`, `device` picks where it runs,
`open_clip_folder` writes one for others to load.
"""

from fewclip.backbone.device import resolve_device
from fewclip.backbone.loading import list_backbones, load_backbone
from fewclip.backbone.open_clip_folder import write_open_clip
from fewclip.backbone.towers import Backbone, ClassPrompts, TextHidden

__all__ = [
    "Backbone",
    "ClassPrompts",
    "TextHidden",
    "list_backbones",
    "load_backbone",
    "resolve_device",
    "write_open_clip",
]
