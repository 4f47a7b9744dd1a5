"""Step 2 of the page: choose a method, train, watch, cancel. The job runs without the page."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple

import gradio as gr

from fewclip.errors import DataError, OptionError
from fewclip_app.ui import render
from fewclip_app.ui.events import EVENT
from fewclip_app.work import training
from fewclip_app.work.job_queue import Job, JobQueue, user_message
from fewclip_app.work.sessions import Sessions
from fewclip_app.work.workspace import Workspace

GLANCE = 0.5  # seconds between two looks at a job
GENTLE = {"crop_area": 0.5, "flip": False}
METHODS = {"Skip Tuning": "skip-tuning", "DePT": "dept"}


class Adapt(NamedTuple):
    """`look` brings `outputs` up to date and goes on looking while a training runs.

    `ended` holds the last training that came to an end, so that its change is that end.
    """

    look: Any
    outputs: list[gr.components.Component]
    ended: gr.Textbox
    gentle: gr.Checkbox


def build(sessions: Sessions) -> Adapt:
    """Lay the step out in the current Blocks."""
    settings = sessions.settings
    gr.HTML(
        render.step(2, "Adapt", "CLIP learns your classes. You can stop it at any time."),
        elem_classes="fc-lead",
    )
    method = gr.Radio(
        list(METHODS.items()),
        value="skip-tuning",
        label="Method",
        elem_id="method",
    )
    gr.HTML(_WHEN)
    with gr.Accordion("Advanced", open=False), gr.Row():
        backbone = gr.Dropdown(
            list(settings.backbones),
            value=settings.backbones[0],
            label="Backbone",
            info="micro comes with fewclip; the others are downloaded once.",
        )
        shots = gr.Slider(
            1,
            64,
            value=16,
            step=1,
            label="Images per class to learn from",
            info="What is left over is used to measure.",
        )
        epochs = gr.Number(
            value=0, precision=0, minimum=0, label="Epochs", info="0: as the method's paper."
        )
        gentle = gr.Checkbox(
            label="Small parts matter, or left and right",
            info="Text, digits, defects: while it learns, images are cut less and not mirrored.",
            elem_id="gentle",
        )
    with gr.Row():
        start = gr.Button("Adapt", variant="primary", elem_id="adapt", min_width=140)
        cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel", min_width=140)
    view = gr.HTML(elem_id="job")

    # The page asks again and again, and no answer depends on the one before: a connection that
    # broke or a laptop that slept costs a glance, not the rest of the training.
    timer = gr.Timer(GLANCE, active=False)
    ended = gr.Textbox("", visible="hidden", label="ended")

    def on_start(
        method: str, backbone: str, shots: float, epochs: float, gentle: bool, request: gr.Request
    ) -> tuple[Any, ...]:
        workspace = sessions.of(request)
        try:
            begin(
                workspace,
                sessions.desk,
                method=method,
                backbone=backbone,
                shots=shots,
                epochs=epochs,
                gentle=gentle,
            )
        except Exception as error:
            note = render.note(user_message(error), "error")
            return gr.update(), gr.update(), note, gr.update(), gr.update()
        return look(request)

    def look(request: gr.Request) -> tuple[Any, ...]:
        job = sessions.of(request).job
        if job is None:  # Gradio takes silence for empty values
            return gr.update(), gr.update(), gr.update(), gr.update(active=False), gr.update()
        over = job.finished  # before it is drawn: the last picture is of the end
        return (
            gr.update(interactive=over),
            gr.update(visible=not over),
            draw_job(job, sessions.desk),
            gr.update(active=not over),
            job.id if over else gr.update(),
        )

    def on_cancel(request: gr.Request) -> None:
        job = sessions.of(request).job
        if job is not None:
            job.stop()

    outputs = [start, cancel, view, timer, ended]
    quiet = {**EVENT, "show_progress": "hidden"}
    start.click(
        on_start, [method, backbone, shots, epochs, gentle], outputs, trigger_mode="once", **quiet
    )
    timer.tick(look, None, outputs, **quiet)
    cancel.click(on_cancel, None, None, **quiet)
    return Adapt(look, outputs, ended, gentle)


def begin(workspace: Workspace, desk: JobQueue, **choices: Any) -> Job:
    """Queue a training of this workspace.

    Args:
        choices: method, backbone, shots, epochs (0: the method's own number), gentle (cut images
            less and never mirror them while training).

    Raises:
        DataError: no images to learn from, or a training runs already.
        OptionError: a choice out of range.
    """
    with workspace.lock:
        if workspace.job is not None and not workspace.job.finished:
            raise DataError("a training of yours is under way; wait for it, or cancel it")
        shots, epochs = choices["shots"], choices["epochs"] or 0
        if not 1 <= shots <= 1000:
            raise OptionError(f"images per class must be from 1 to 1000, not {shots}")
        if not 0 <= epochs <= 1000:
            raise OptionError(f"epochs must be from 0 to 1000, not {epochs}")
        if choices["method"] not in METHODS.values():
            known = ", ".join(METHODS.values())
            raise OptionError(f"method {choices['method']!r} is not offered here; choose {known}")
        training.check_backbone(workspace, choices["backbone"])
        workspace.labelled()
        taken = {
            "method": choices["method"],
            "backbone": choices["backbone"],
            "shots": int(shots),
            "epochs": int(epochs) or None,
        } | (GENTLE if choices.get("gentle") else {})
        workspace.job = desk.submit(lambda job: training.train(workspace, job, **taken))
        return workspace.job


def draw_job(job: Job, desk: JobQueue) -> str:
    """What a job does, as HTML."""
    if job.state == "failed":
        return render.note(f"That did not work: {job.error}", "error")
    if job.state == "stopped":
        return render.note("Stopped. Nothing was changed; an earlier model stays as it was.")
    if job.state == "waiting":
        ahead = desk.ahead(job)
        people = "one training is" if ahead == 1 else f"{ahead} trainings are"
        return render.note(
            f"You are number {ahead} in the queue: {people} ahead of yours. "
            "It begins by itself; you may leave the page open."
        )
    at = job.progress
    if at is None:
        return (
            f"<div class='fc-job' role='status'><b>{escape(job.stage)} ...</b>"
            f"{render.progress(None)}</div>"
        )
    done = at.epoch - 1 + at.step / at.steps
    if job.state == "done":
        head, left = f"Done after {at.epochs} epoch{'s' * (at.epochs > 1)}", "see step 3"
    elif done >= at.epochs:
        head, left = f"{job.stage} ...", ""
    else:
        head, left = f"Epoch {at.epoch} of {at.epochs}", f"{clock(at.seconds_left)} left"
    return (
        f"<div class='fc-job'><div class='fc-line'><b>{escape(head)}</b>"
        f"<span>loss {at.loss:.3f}</span><span>{left}</span></div>"
        f"{render.progress(done / at.epochs)}"
        f"{render.loss_curve(dict(job.losses), done, at.epochs)}</div>"
    )


def clock(seconds: float) -> str:
    """'2 min 05 s'."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


_WHEN = (
    "<dl class='fc-methods'><dt>Skip Tuning</dt><dd>trains CLIP's upper layers. Take it first, "
    "above all where your images are unlike everyday photos.</dd><dt>DePT</dt><dd>leaves CLIP as "
    "it is and learns a prompt and a small head. Take it where memory is short, or where the "
    "other one falls short.</dd></dl>"
)
