"""Step 4 of the page, and all of the served page: photos in, answers out. No training, no torch."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import gradio as gr
from PIL import Image as PILImage

from fewclip.base import BaseClassifier
from fewclip.decide import Prediction
from fewclip.errors import CoverageError, DataError, FewclipError, ImageError
from fewclip.images import MAX_PIXELS
from fewclip_app.ui import heat, render
from fewclip_app.ui.browser import script
from fewclip_app.ui.class_cards import ACCEPT
from fewclip_app.ui.events import EVENT, LOST, on_error, uploaded
from fewclip_app.work.decoding import decode
from fewclip_app.work.training import read_names

COVERAGE = 0.9  # of the sets of possible answers
AT_ONCE = 100  # images that are answered in one go
_ANSWERING = threading.BoundedSemaphore(2)  # more would only slow each other down

# (typed classes, the page's request) -> the classifier to use, None if there is none yet
Choose = Callable[[Sequence[str], gr.Request], BaseClassifier | None]


class Panel(NamedTuple):
    """The step's components, and the function that answers for `asked`.

    `photos` holds the (path, name) of each image to classify.
    """

    photos: gr.State
    names: gr.Textbox
    answers: gr.HTML
    show: Callable[[Sequence[tuple[str, str]], str, gr.Request], str]


def panel(choose: Choose, *, max_pixels: int = MAX_PIXELS) -> Panel:
    """Lay the step out in the current Blocks.

    Args:
        choose: (typed classes, request) -> classifier; fewclip errors that it raises are shown.
        max_pixels: limit for one image.
    """
    photos = gr.State([])
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260):
            asked = gr.HTML(
                _ASK,
                js_on_load=script("images", "classify"),
                apply_default_css=False,
                elem_id="classify-photos",
            )
            names = gr.Textbox(
                label="More classes, by name alone",
                info="Separated by commas. Nothing is trained: CLIP knows what words look like.",
                placeholder="zebra, a red bus",
                elem_id="classify-names",
            )
        with gr.Column(scale=3, min_width=260):
            live = gr.HTML(elem_id="live-answer")
            answers = gr.HTML(_EMPTY, js_on_load=heat.asks(), elem_id="answers")

    def show(photos: Sequence[tuple[str, str]], text: str, request: gr.Request) -> str:
        try:
            typed = read_names(text or "")
            classifier = choose(typed, request)
            if classifier is None or not photos:
                return NO_MODEL if classifier is None else _EMPTY
            with _ANSWERING:
                return draw_answers(classifier, photos, max_pixels, typed)
        except FewclipError as error:
            return render.note(str(error), "error")

    def on_upload(
        photos: list[tuple[str, str]], text: str, event: gr.EventData, request: gr.Request
    ) -> tuple[list[tuple[str, str]], str]:
        new = [(str(uploaded(sent)), str(sent["name"])) for sent in event.sent]
        lost = [("", str(name)) for name in event.failed]
        photos = [*new, *lost, *photos]
        return photos, show(photos, text, request)

    def on_clear(text: str, request: gr.Request) -> tuple[list[tuple[str, str]], str]:
        return [], show([], text, request)

    def on_frame(text: str, event: gr.EventData, request: gr.Request) -> str:
        try:
            typed = read_names(text or "")
            classifier = choose(typed, request)
            if classifier is None:
                html = NO_MODEL
            else:
                with _ANSWERING:
                    html = draw_frame(classifier, str(event.frame), max_pixels, typed)
        except FewclipError as error:
            html = render.note(str(error), "error")
        return f"<div data-frame='{int(event.number)}'>{html}</div>"

    def on_why(
        photos: Sequence[tuple[str, str]], text: str, event: gr.EventData, request: gr.Request
    ) -> str:
        key = str(event.key)

        def draw() -> str:
            classifier = choose(read_names(text or ""), request)
            path = next((path for i, (path, _) in enumerate(photos) if _key(i) == key), "")
            if classifier is None or not path:
                raise DataError("this photo is not here any more; add it again")
            with _ANSWERING:
                return heat.draw_heat(classifier, Path(path), [None], max_pixels)

        return heat.answer(key, draw)

    heat.connect(answers, on_why, [photos, names])
    quiet = {**EVENT, "show_progress": "hidden"}
    asked.upload(
        on_error(on_upload), [photos, names], [photos, answers], trigger_mode="multiple", **EVENT
    )
    asked.clear(on_clear, names, [photos, answers], **quiet)
    asked.live(on_error(on_frame), names, live, trigger_mode="multiple", **quiet)
    asked.stop(lambda: "", None, live, **quiet)
    for trigger in (names.submit, names.blur):
        trigger(show, [photos, names], answers, trigger_mode="always_last", **EVENT)
    return Panel(photos, names, answers, show)


def answer(
    classifier: BaseClassifier,
    files: Sequence[tuple[str, str]],
    max_pixels: int,
    top_k: int,
    coverage: float | None = None,
) -> list[tuple[PILImage.Image | None, Prediction | str]]:
    """(image, answer) for each (path, name); if it can't be read, the answer is the reason."""
    images: list[PILImage.Image | None] = []
    reasons: list[str] = []
    for path, name in files:
        try:
            images.append(decode(Path(path), max_pixels=max_pixels))
            reasons.append("")
        except ImageError as error:
            images.append(None)
            reasons.append(f"{name}: {render.plain(str(error))}")
    good = [image for image in images if image is not None]
    predictions = iter(classifier.predict(good, top_k, coverage) if good else [])
    return [
        (image, reason if image is None else next(predictions))
        for image, reason in zip(images, reasons, strict=True)
    ]


def draw_answers(
    classifier: BaseClassifier,
    photos: Sequence[tuple[str, str]],
    max_pixels: int,
    typed: Sequence[str] = (),
) -> str:
    """HTML for answers to at most `AT_ONCE` images; those without a path failed to upload."""
    shown = photos[:AT_ONCE]
    arrived = [(path, name) for path, name in shown if path]
    coverage, remark = possible_coverage(classifier, typed)
    pairs = iter(answer(classifier, arrived, max_pixels, len(classifier.classes), coverage))
    cards = ""
    for i, (path, name) in enumerate(shown):
        image, shown_answer = next(pairs) if path else (None, f"{name}: {LOST}")
        cards += render.answer(image, name, shown_answer, typed, _why(_key(i), name))
    more = len(photos) - AT_ONCE
    rest = render.note(f"{more} more are not shown; at most {AT_ONCE} at once") if more > 0 else ""
    return f"<div class='fc-answers'>{cards}</div>{rest}<p><small>{escape(remark)}</small></p>"


def possible_coverage(classifier: BaseClassifier, typed: Sequence[str]) -> tuple[float | None, str]:
    """The coverage of a model's prediction sets, None if it has none, and a remark for people."""
    if typed:
        return None, "Other possible answers are shown for trained classes only."
    try:
        classifier.check_coverage(COVERAGE)
    except CoverageError as error:
        reason = str(error).partition(";")[0].removeprefix("no prediction sets: ")
        return None, f"Other possible answers cannot be shown: {reason}."
    return COVERAGE, (
        f"'Could be' and 'no other class' hold for {render.percent(COVERAGE)} of photos like "
        "those that were kept back in training."
    )


def _why(key: str, name: str) -> str:
    """The box with the heat map of an answer, and the button that opens it."""
    return (
        f"<button type='button' class='fc-button fc-small' popovertarget='{key}' "
        f"aria-label='Why? {escape(name)}'>Why?</button><div popover id='{key}' class='fc-detail' "
        f"role='dialog' aria-label='Why? {escape(name)}'>{escape(name)}{heat.slot(key)}</div>"
    )


def _key(number: int) -> str:
    return f"answer-{number}"


def draw_frame(
    classifier: BaseClassifier, frame: str, max_pixels: int, typed: Sequence[str]
) -> str:
    """HTML for a camera frame, a JPEG as a data URI.

    Raises:
        ImageError: it is not one.
    """
    try:
        content = base64.b64decode(frame.partition(",")[2], validate=True)
    except ValueError as error:
        raise ImageError("the frame of the camera is broken; start the webcam again") from error
    image = decode(content, max_pixels=max_pixels)
    answer = classifier.predict([image], top_k=len(classifier.classes))[0]
    return render.answer(None, "what the camera sees", answer, typed)


_EMPTY = render.empty("Drop a photo, or take one: the answer appears here.")
NO_MODEL = render.empty("No model yet: train one in step 2, or load one made earlier.")
_ASK = (
    "<div class='fc-ask'><div class='fc-drop' data-act='choose'>Drop photos here, or paste them"
    "</div><div class='fc-card-foot'>"
    "<button type='button' class='fc-button fc-small' data-act='choose'>Choose photos</button>"
    "<button type='button' class='fc-button fc-small' data-act='camera'>Use the webcam</button>"
    "<button type='button' class='fc-button fc-small fc-quiet' data-act='clear'>Clear</button>"
    "</div><p class='fc-status' role='status'></p>"
    "<div class='fc-live'><video muted playsinline aria-label='What the camera sees'></video></div>"
    f"<input type='file' hidden multiple accept='{ACCEPT}'></div>"
)
