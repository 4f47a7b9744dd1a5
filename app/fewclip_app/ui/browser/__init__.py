"""The page's own JavaScript, run by Gradio's HTML component. Nothing is loaded from elsewhere."""

from __future__ import annotations

from pathlib import Path


def script(*names: str) -> str:
    """The named files of this folder, concatenated, for `gr.HTML(js_on_load=...)`."""
    return "\n".join((Path(__file__).parent / f"{name}.js").read_text("utf-8") for name in names)
