"""Step 3 of the page: how good the model is, and where it is wrong. It computes nothing."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple

import gradio as gr

from fewclip_app.ui import render
from fewclip_app.ui.events import EVENT
from fewclip_app.work.sessions import Sessions
from fewclip_app.work.training import Judged, Model

GALLERY = 60  # mistakes that are shown
WIDE = 0.15  # of an interval, from which on the remark asks for more images


class Results(NamedTuple):
    """`show(request)` gives a value for each of `outputs`."""

    show: Any
    outputs: list[Any]


def build(sessions: Sessions) -> Results:
    """Lay the step out in the current Blocks."""
    gr.HTML(
        render.step(3, "How good is it?", "Measured on images it has not been trained on."),
        elem_classes="fc-lead",
    )
    headline = gr.HTML(elem_id="headline")
    with gr.Column(visible=False) as details, gr.Tabs():
        with gr.Tab("Mistakes"), gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=260):
                wrong = gr.Gallery(
                    label="What it got wrong, the surest mistakes first",
                    interactive=False,
                    allow_preview=False,
                    buttons=[],
                    height=300,
                    object_fit="cover",
                    elem_id="mistakes",
                    elem_classes="fc-wrong",
                )
            with gr.Column(scale=2, min_width=260):
                one = gr.HTML(_PICK, elem_id="mistake")
        with gr.Tab("Mix-ups"):
            confusion = gr.HTML(elem_id="confusion")
        with gr.Tab("Each class"):
            table = gr.HTML(elem_id="per-class")
        with gr.Tab("Can I trust the score?"):
            reliability = gr.HTML(elem_id="reliability")
    left_out = gr.HTML()

    def show(request: gr.Request) -> tuple[Any, ...]:
        model = sessions.of(request).model
        judged = model.judged if model else None
        unused = render.skipped(model.left_out, "Not used:") if model else ""
        if judged is None:
            blank = (gr.update(visible=False), None, _PICK, "", "", "")
            return (draw_headline(model), *blank, unused)
        captioned = [
            (str(m.photo.thumb), f"said {m.said.label}, is {m.truth}")
            for m in judged.mistakes[:GALLERY]
        ]
        return (
            draw_headline(model),
            gr.update(visible=True),
            gr.update(value=captioned, visible=bool(captioned)),
            _PICK if captioned else render.note("Not one of them was wrong.", "ok"),
            render.confusion(judged.after),
            render.per_class(judged.after),
            _trust(judged),
            unused,
        )

    def pick(event: gr.SelectData, request: gr.Request) -> str:
        model = sessions.of(request).model
        if model is None or model.judged is None or not isinstance(event.index, int):
            return _PICK
        mistake = model.judged.mistakes[event.index]
        return (
            f"<p>{escape(mistake.photo.source)} is <b>{escape(mistake.truth)}</b>. "
            "It said:</p>" + "".join(render.bar(label, score) for label, score in mistake.said.top)
        )

    wrong.select(pick, None, one, show_progress="hidden", **EVENT)
    outputs = [headline, details, wrong, one, confusion, table, reliability, left_out]
    return Results(show, outputs)


def draw_headline(model: Model | None) -> str:
    """Accuracy before and after, and how far the number can be trusted."""
    if model is None:
        return render.empty(
            "Nothing to measure yet: adapt a model in step 2, or load one in step 4."
        )
    if model.judged is None:
        return _without_images(model)
    before, after = model.judged.before, model.judged.after
    low, high = after.accuracy_interval()
    source = "your test images" if model.judged.own else "your images that were kept back"
    rows = [
        ("Before, by class names alone", render.percent(before.accuracy), f"of {before.n} images"),
        (
            "After adapting",
            render.percent(after.accuracy),
            f"of {after.n} images right; {source}",
        ),
        (
            "How sure is that?",
            f"{render.percent(low)} to {render.percent(high)}",
            "where it lies for new images like these (95% interval)",
        ),
    ]
    remarks = ""
    if after.accuracy < before.accuracy:
        remarks += render.note(
            "Adapting made it worse here. Try more images, the other method, or better class names."
        )
    if high - low > WIDE:
        remarks += render.note(
            f"{after.n} images tell little: with more images to measure on, the interval shrinks."
        )
    return render.figures(rows) + remarks


def _without_images(model: Model) -> str:
    known = model.card.metrics.get("after")
    if model.loaded and known:
        return render.note(
            f"This model was loaded. Its card says: {render.percent(known['accuracy'])} of "
            f"{known['n']} images right when it was adapted.",
            "ok",
        )
    if model.loaded:
        return render.note("This model was loaded, and its card holds no measurement.")
    return render.note(
        "There were no images left to measure on: with 8 or more per class some are kept back, or "
        "add test images in step 1. Until then the scores are not calibrated, and it can't say "
        "'none of these'."
    )


def _trust(judged: Judged) -> str:
    return (
        "<div class='fc-answers'><div>"
        + render.reliability(judged.after)
        + "</div><div><p>Each dot is a group of answers with a similar score; a larger one holds "
        "more of them. On the dashed line a score of 80% is right 8 times in 10; below it the "
        "model is too sure of itself, above it too shy.</p>"
        f"<p>On average score and truth lie <b>{render.percent(judged.after.ece)}</b> apart.</p>"
        "</div></div>"
    )


_PICK = render.empty("Choose an image to see what the model said about it.")
