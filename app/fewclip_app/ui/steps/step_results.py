"""Step 3 of the page: how good the model is, and where it is wrong. It computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from fewclip.errors import DataError
from fewclip_app.ui import heat, render
from fewclip_app.work.evaluation import Evaluation, Mistake
from fewclip_app.work.sessions import Sessions
from fewclip_app.work.training import Model
from fewclip_app.work.workspace import Workspace

GALLERY = 24  # mistakes that are shown
WIDE = 0.15  # width of an interval from which the remark asks for more images


class Results(NamedTuple):
    """`show(request)` gives a value for each of `outputs`."""

    show: Any
    outputs: list[Any]


def build(sessions: Sessions) -> Results:
    """Lay the step out in the current Blocks."""
    gr.HTML(
        render.step("How good is it?", "Measured on images it has not been trained on."),
        elem_classes="fc-lead",
    )
    headline = gr.HTML(elem_id="headline")
    with gr.Column(visible=False) as details, gr.Tabs():
        with gr.Tab("Mistakes"):
            wrong = gr.HTML(js_on_load=heat.asks(), apply_default_css=False, elem_id="mistakes")
        with gr.Tab("Mix-ups"):
            confusion = gr.HTML(elem_id="confusion")
        with gr.Tab("Classes"):
            table = gr.HTML(elem_id="per-class")
        with gr.Tab("Trust"):
            reliability = gr.HTML(elem_id="reliability")
    left_out = gr.HTML()
    gr.HTML(render.links(("Try it", "classify")))

    def show(request: gr.Request) -> tuple[Any, ...]:
        model = sessions.of(request).model
        evaluation = model.evaluation if model else None
        unused = render.skipped(model.left_out, "Not used:") if model else ""
        if evaluation is None:
            return (draw_headline(model), gr.update(visible=False), "", "", "", "", unused)
        return (
            draw_headline(model),
            gr.update(visible=True),
            draw_mistakes(evaluation.mistakes),
            render.confusion(evaluation.after),
            render.per_class(evaluation.after),
            _trust(evaluation),
            unused,
        )

    def on_why(event: gr.EventData, request: gr.Request) -> str:
        key = str(event.key)
        return heat.answer(key, lambda: draw_why(sessions.of(request), key))

    heat.connect(wrong, on_why)
    return Results(show, [headline, details, wrong, confusion, table, reliability, left_out])


def draw_mistakes(mistakes: Sequence[Mistake]) -> str:
    """Each image in full, with its class and the answer below; a click shows all scores."""
    if not mistakes:
        return render.note("Not one of them was wrong.", "ok")
    cards = "".join(_mistake(each, i) for i, each in enumerate(mistakes[:GALLERY]))
    count = len(mistakes)
    shown = f"the {GALLERY} surest of them" if count > GALLERY else "the surest first"
    return (
        f"<p><small>{count} wrong answer{'s' * (count > 1)}, {shown}. Choose one to see all that "
        f"it answered, and why.</small></p><div class='fc-mistakes'>{cards}</div>"
    )


def draw_why(workspace: Workspace, key: str) -> str:
    """What spoke for the wrong answer, and what for the right one.

    Raises:
        DataError: the model has been replaced since.
    """
    model = workspace.model
    mistakes = model.evaluation.mistakes if model and model.evaluation else ()
    for number, mistake in enumerate(mistakes[:GALLERY]):
        if model is not None and _key(number) == key:
            labels = (mistake.answer.label, mistake.truth)
            pixels = workspace.settings.max_pixels
            return heat.draw_heat(model.base, mistake.photo.path, labels, pixels)
    raise DataError("this model is not the current one any more; reload the page")


def _key(number: int) -> str:
    return f"mistake-{number}"


def _mistake(mistake: Mistake, number: int) -> str:
    image = f"<img src='{escape(render.address(mistake.photo.thumb))}' alt=''>"
    source, truth = escape(mistake.photo.source), escape(mistake.truth)
    answer = mistake.answer
    bars = "".join(render.bar(label, score) for label, score in answer.top)
    return (
        f"<button type='button' class='fc-mistake' popovertarget='{_key(number)}'>{image}"
        f"<span>answered <b>{escape(answer.label)}</b> {render.percent(answer.score)}<br>"
        f"is <b>{truth}</b></span></button>"
        f"<div popover id='{_key(number)}' class='fc-detail' role='dialog' aria-label='{source}'>"
        f"{image}<p>{source} is <b>{truth}</b>. It answered:</p>{bars}"
        f"{heat.slot(_key(number))}</div>"
    )


def draw_headline(model: Model | None) -> str:
    """Accuracy before and after, and how much it can be trusted."""
    if model is None:
        return render.empty(
            "Nothing to measure yet: adapt a model in step 2, or load one in step 4."
        )
    if model.evaluation is None:
        return _without_images(model)
    before, after = model.evaluation.before, model.evaluation.after
    low, high = after.accuracy_interval()
    source = "your test images" if model.evaluation.own else "your images that were kept back"
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
            "the range for new images like these (95% interval)",
        ),
    ]
    remarks = ""
    if after.accuracy < before.accuracy:
        remarks += render.note(
            "Adapting made it worse here. Try more images, another method, or better class names."
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


def _trust(evaluation: Evaluation) -> str:
    apart = render.percent(evaluation.after.ece)
    return (
        "<div class='fc-trust'><div>"
        + render.reliability(evaluation.after)
        + "</div><div><p>Each dot is a group of answers with a similar score; a larger one holds "
        "more of them. On the dashed line a score of 80% is right 8 times in 10; below it the "
        "model is too sure of itself, above it too shy.</p>"
        f"<p>On average score and truth lie <b>{apart}</b> apart.</p>"
        "</div></div>"
    )
