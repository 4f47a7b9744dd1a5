"""A backbone's name -> a Backbone: bundled, from open_clip's Hub tags, or from a local folder.

`resolve` picks the source, `local_folder` and `pretrained` build the model, `wrapping` makes it a
Backbone. What a model supports is in `backbone.checks`.
"""

from fewclip.backbone.loading.local_folder import model_class
from fewclip.backbone.loading.names import DEFAULTS_FILE, MICRO
from fewclip.backbone.loading.resolve import load_backbone, why_features_only
from fewclip.backbone.loading.wrapping import wrap

__all__ = ["DEFAULTS_FILE", "MICRO", "load_backbone", "model_class", "why_features_only", "wrap"]
