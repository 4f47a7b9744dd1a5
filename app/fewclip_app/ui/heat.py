"""Why the model answered that: a heat map in a box, computed when a click opens it.

The box is part of whatever lists the images; `heat.js` requests its content and inserts it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image as PILImage

from fewclip.base import BaseClassifier
from fewclip.errors import FewclipError
from fewclip_app.ui import render
from fewclip_app.ui.browser import script
from fewclip_app.ui.events import EVENT
from fewclip_app.work.decoding import decode

SIDE = 640  # pixels of the explained image's longer side: no model sees more
SHOWN = 300  # pixels of the heat map on the page


def asks() -> str:
    """JavaScript for a component with boxes; it triggers the event `why` with a box's key."""
    return script("heat")


def slot(key: str) -> str:
    """Placeholder for the heat map of a box."""
    return f"<div class='fc-heat' data-heat='{escape(key)}' role='status'>Looking ...</div>"


def answer(key: str, draw: Callable[[], str]) -> str:
    """Content for the box with this key: the result of `draw`, or why it failed."""
    try:
        drawn = draw()
    except FewclipError as error:
        drawn = render.note(str(error), "error")
    return f"<div data-for='{escape(key)}'>{drawn}</div>"


def connect(asking: gr.HTML, handler: Callable[..., str], inputs: Sequence[Any] = ()) -> None:
    """Let a handler that returns an `answer` fill the boxes of a component made with `asks()`."""
    answers = gr.HTML(js_on_load=script("heat_answer"), apply_default_css=False, visible="hidden")
    quiet = {**EVENT, "show_progress": "hidden"}
    asking.why(handler, list(inputs), answers, trigger_mode="multiple", **quiet)


def draw_heat(
    classifier: BaseClassifier, path: Path, labels: Sequence[str | None], max_pixels: int
) -> str:
    """A heat map for each label; a label of None means the best class.

    Raises:
        FewclipError: the image cannot be read, or a label is not a class name.
    """
    image = decode(path, max_pixels=max_pixels)
    image.thumbnail((SIDE, SIDE))
    return "".join(_figure(classifier, image, label) for label in labels) + _LEGEND


def _figure(classifier: BaseClassifier, image: PILImage.Image, label: str | None) -> str:
    found = classifier.explain(image, label)
    overlay = found.overlay()
    overlay.thumbnail((SHOWN, SHOWN))
    out = io.BytesIO()
    overlay.save(out, "WEBP", quality=85)
    address = "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
    text = f"what spoke for {found.label}"
    return (
        f"<figure><img src='{address}' alt='Heat map: {escape(text)}'>"
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


_LEGEND = "<small>Bright: these parts counted most. Grey: they did not count.</small>"
