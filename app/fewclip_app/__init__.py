"""fewclip_app: the page for people who don't write code. It only calls what the SDK offers.

    import fewclip_app

    fewclip_app.run(port=7860)                      # the whole page
    fewclip_app.classify_ui(OnnxClassifier("m"))    # its classify part alone, no torch

Names are looked up when they are first used: importing this package loads neither Gradio nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewclip_app.server import run
    from fewclip_app.settings import Settings
    from fewclip_app.ui.served import classify_ui
    from fewclip_app.ui.theme import mount_options

__all__ = ["Settings", "classify_ui", "mount_options", "run"]

_HOMES = {"Settings": "settings", "classify_ui": "ui.served", "mount_options": "ui.theme"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fewclip_app' has no attribute {name!r}")
    module = importlib.import_module(f"fewclip_app.{_HOMES.get(name, 'server')}")
    return getattr(module, name)
