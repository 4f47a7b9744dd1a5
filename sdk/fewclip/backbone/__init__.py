"""CLIP backbones: open_clip's towers behind one small interface, and where they come from.

`towers` and `feature_towers` compute features, `loading` turns a name into a `Backbone`, `listing`
lists what is available, `device` picks where it runs, `open_clip_folder` writes one for open_clip.
"""

from fewclip.backbone.class_prompts import ClassPrompts, TextHidden, groups_by_length
from fewclip.backbone.device import resolve_device
from fewclip.backbone.feature_towers import FeatureBackbone
from fewclip.backbone.listing import BackboneInfo, list_backbones
from fewclip.backbone.loading import load_backbone, why_features_only
from fewclip.backbone.open_clip_folder import write_open_clip
from fewclip.backbone.towers import Backbone

__all__ = [
    "Backbone",
    "BackboneInfo",
    "ClassPrompts",
    "FeatureBackbone",
    "TextHidden",
    "groups_by_length",
    "list_backbones",
    "load_backbone",
    "resolve_device",
    "why_features_only",
    "write_open_clip",
]
