"""The classify step, shared by the page and by the service. No training, and no torch.

import fewclip_app
from fewclip.runtime import OnnxClassifier

blocks = fewclip_app.classify_ui(OnnxClassifier("pets-onnx"))
app = gr.mount_gradio_app(app, blocks, path="/ui", **fewclip_app.mount_options())
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image as PILImage

from fewclip.base import BaseClassifier
from fewclip.decide import Prediction
from fewclip.errors import FewclipError, ImageError
from fewclip.images import MAX_PIXELS, decode
from fewclip_app.ui import render
from fewclip_app.ui.events import EVENT
from fewclip_app.work.training import read_names

AT_ONCE = 100  # images that are answered in one go
_ANSWERING = threading.BoundedSemaphore(2)  # more at a time would only slow each other down

# (typed classes, the page's request) -> the classifier to ask, None where there is none yet
Choose = Callable[[Sequence[str], gr.Request], BaseClassifier | None]


class Panel(NamedTuple):
    """The step's components, and the function that answers for them."""

    photos: gr.Gallery
    names: gr.Textbox
    answers: gr.HTML
    show: Callable[[Any, str, gr.Request], str]


def panel(choose: Choose, *, max_pixels: int = MAX_PIXELS) -> Panel:
    """Lay the step out in the current Blocks.

    Args:
        choose: (typed classes, request) -> classifier; what it raises of fewclip's own is shown.
        max_pixels: of one image.
    """
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            photos = gr.Gallery(
                label="Photos to classify: drop, paste or take them",
                interactive=True,
                type="filepath",
                file_types=["image"],
                sources=["upload", "webcam", "clipboard"],
                height=260,
                columns=4,
                object_fit="cover",
                buttons=[],
                elem_id="classify-photos",
                elem_classes="fc-photos",
            )
            names = gr.Textbox(
                label="More classes, by name alone",
                info="Separated by commas. Nothing is trained: CLIP knows what words look like.",
                placeholder="zebra, a red bus",
                elem_id="classify-names",
            )
        with gr.Column(scale=3, min_width=280):
            answers = gr.HTML(_EMPTY, elem_id="answers")

    def show(value: Any, text: str, request: gr.Request) -> str:
        paths = [entry[0] for entry in value or []]
        try:
            typed = read_names(text or "")
            classifier = choose(typed, request)
            if classifier is None or not paths:
                return _NO_MODEL if classifier is None else _EMPTY
            with _ANSWERING:
                return draw_answers(classifier, paths, max_pixels, typed)
        except FewclipError as error:
            return render.note(str(error), "error")

    for trigger in (photos.change, names.submit, names.blur):
        trigger(
            show,
            [photos, names],
            answers,
            trigger_mode="always_last",
            **EVENT,
        )
    return Panel(photos, names, answers, show)


def answer(
    classifier: BaseClassifier, paths: Sequence[str], max_pixels: int, top_k: int
) -> list[tuple[PILImage.Image | None, Prediction | str]]:
    """(image, answer) of each path; one that can't be read has its reason for an answer."""
    images: list[PILImage.Image | None] = []
    reasons: list[str] = []
    for path in paths:
        try:
            images.append(decode(Path(path), max_pixels=max_pixels))
            reasons.append("")
        except ImageError as error:
            images.append(None)
            reasons.append(f"{Path(path).name}: {error}")
    good = [image for image in images if image is not None]
    said = iter(classifier.predict(good, top_k=top_k) if good else [])
    return [
        (image, reason if image is None else next(said))
        for image, reason in zip(images, reasons, strict=True)
    ]


def draw_answers(
    classifier: BaseClassifier, paths: Sequence[str], max_pixels: int, typed: Sequence[str] = ()
) -> str:
    """HTML for the answers to at most `AT_ONCE` images."""
    pairs = answer(classifier, paths[:AT_ONCE], max_pixels, len(classifier.classes))
    cards = "".join(
        render.answer(image, Path(path).name, said, typed)
        for path, (image, said) in zip(paths, pairs, strict=False)
    )
    more = len(paths) - AT_ONCE
    rest = render.note(f"{more} more are not shown; at most {AT_ONCE} at once") if more > 0 else ""
    return f"<div class='fc-answers'>{cards}</div>{rest}"


def classify_ui(
    classifier: BaseClassifier | Callable[[], BaseClassifier], *, max_pixels: int = MAX_PIXELS
) -> gr.Blocks:
    """The classify step alone, over one classifier: what `fewclip serve DIR --ui` mounts.

    Args:
        classifier: an OnnxClassifier or a Classifier, or a function of no arguments that returns
            the current one (a service may swap its model).
        max_pixels: of one image.
    """

    def current() -> BaseClassifier:
        return classifier if isinstance(classifier, BaseClassifier) else classifier()

    @functools.lru_cache(maxsize=16)
    def extended(base: BaseClassifier, names: tuple[str, ...]) -> BaseClassifier:
        return base.add_classes(list(names)) if names else base

    def choose(names: Sequence[str], request: gr.Request) -> BaseClassifier:
        base = current()
        return extended(base, tuple(name for name in names if name not in base.classes))

    card = current().card
    with gr.Blocks(
        title=f"{card.name}: classify", analytics_enabled=False, delete_cache=(600, 3600)
    ) as blocks:
        known = ", ".join(card.classes[:12]) + (" ..." if len(card.classes) > 12 else "")
        gr.HTML(
            f"<div class='fc-head'><h1>{escape(card.name)}</h1>"
            f"<p>Knows {len(card.classes)} classes: {escape(known)}</p></div>"
        )
        with gr.Column(elem_classes="fc-step"):
            panel(choose, max_pixels=max_pixels)
    return blocks  # type: ignore[no-any-return]


_EMPTY = render.empty("Drop a photo, or take one: what it shows will stand here.")
_NO_MODEL = render.empty("No model yet: adapt one in step 2, or load one made earlier.")
