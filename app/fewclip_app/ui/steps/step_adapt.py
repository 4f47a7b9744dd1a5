"""Step 2 of the page: train, watch, cancel. The job runs without the page."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import gradio as gr

from fewclip.errors import DataError, OptionError
from fewclip_app.ui import render
from fewclip_app.ui.events import EVENT
from fewclip_app.work import training
from fewclip_app.work.job_queue import Job, JobQueue, user_message
from fewclip_app.work.sessions import Sessions
from fewclip_app.work.workspace import Workspace

POLL_SECONDS = 0.5  # between two polls of a job
GENTLE = {"augment": "gentle"}
METHODS = {"Best for my photos": "auto", "Skip Tuning": "skip-tuning", "DePT": "dept"}
# What trains if nobody chooses.
DEFAULT_METHOD = "auto"


class Adapt(NamedTuple):
    """`poll` updates `outputs` and keeps polling while a training runs.

    `ended` holds the last training that ended, so it changes when one ends.
    """

    poll: Any
    outputs: list[gr.components.Component]
    ended: gr.Textbox
    gentle: gr.Checkbox


def build(sessions: Sessions) -> Adapt:
    """Lay the step out in the current Blocks."""
    settings = sessions.settings
    gr.HTML(
        render.step("Train", "CLIP learns your classes. You can stop it at any time."),
        elem_classes="fc-lead",
    )
    gentle = gr.Checkbox(
        label="Small parts matter, or left and right",
        info="For text, digits and defects: images are cut less while it learns, and never "
        "mirrored.",
        elem_id="gentle",
    )
    with gr.Row(elem_classes="fc-actions"):
        start = gr.Button("Train", variant="primary", elem_id="adapt")
        cancel = gr.Button("Cancel", visible=False, elem_id="cancel")
    view = gr.HTML(elem_id="job")
    if settings.backbones[0] == "micro":
        gr.HTML(_MICRO, elem_id="weakness")
    with gr.Accordion("Advanced", open=False):
        method = gr.Radio(
            list(METHODS.items()), value=DEFAULT_METHOD, label="Method", elem_id="method"
        )
        gr.HTML(_MEANING)
        with gr.Row():
            backbone = gr.Dropdown(
                list(settings.backbones),
                value=settings.backbones[0],
                label="Backbone",
                info="What CLIP has seen before. micro comes with fewclip; the others see far "
                "better, and are downloaded once (0.6 to 1.7 GB).",
            )
            shots = gr.Slider(
                1,
                64,
                value=16,
                step=1,
                label="Images per class to learn from",
                info="The rest is used to measure accuracy.",
            )
            epochs = gr.Number(
                value=0, precision=0, minimum=0, label="Epochs", info="0: as the method's paper."
            )

    # The page polls, and no answer depends on the one before: a broken connection or a laptop
    # that slept costs one poll, not the rest of the training.
    timer = gr.Timer(POLL_SECONDS, active=False)
    ended = gr.Textbox("", visible="hidden", label="ended")

    def on_start(
        method: str, backbone: str, shots: float, epochs: float, gentle: bool, request: gr.Request
    ) -> tuple[Any, ...]:
        workspace = sessions.of(request)
        try:
            begin(
                workspace,
                sessions.jobs,
                method=method,
                backbone=backbone,
                shots=shots,
                epochs=epochs,
                gentle=gentle,
            )
        except Exception as error:
            note = render.note(user_message(error), "error")
            return gr.update(), gr.update(), note, gr.update(), gr.update()
        return poll(request)

    def poll(request: gr.Request) -> tuple[Any, ...]:
        job = sessions.of(request).job
        if job is None:  # an earlier refusal to begin is outdated
            return gr.update(), gr.update(), "", gr.update(active=False), gr.update()
        over = job.finished  # before drawing: the last thing shown is the end
        return (
            gr.update(interactive=over, variant="secondary" if over else "primary"),
            gr.update(visible=not over),
            draw_job(job, sessions.jobs),
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
    timer.tick(poll, None, outputs, **quiet)
    cancel.click(on_cancel, None, None, **quiet)
    return Adapt(poll, outputs, ended, gentle)


def begin(workspace: Workspace, jobs: JobQueue, **choices: Any) -> Job:
    """Queue a training of this workspace.

    Args:
        choices: method, backbone, shots, epochs (0: the method's own number), gentle (crop images
            less and never mirror them while training).

    Raises:
        DataError: no images to train on, or a training is already running.
        OptionError: a choice out of range.
    """
    with workspace.lock:
        if workspace.job is not None and not workspace.job.finished:
            raise DataError("your training is still running; wait for it, or cancel it")
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
        options = {
            "method": choices["method"],
            "backbone": choices["backbone"],
            "shots": int(shots),
        }
        if choices["method"] != "auto":  # "auto" chooses epochs and crops itself
            options["epochs"] = int(epochs) or None
            options |= GENTLE if choices.get("gentle") else {}
        workspace.job = jobs.submit(lambda job: training.train(workspace, job, **options))
        return workspace.job


def draw_job(job: Job, jobs: JobQueue) -> str:
    """A job's progress, as HTML."""
    if job.state == "failed":
        return render.note(f"That did not work: {job.error}", "error")
    if job.state == "stopped":
        return render.note("Stopped. Nothing was changed; an earlier model stays as it was.")
    if job.state == "waiting":
        ahead = jobs.ahead(job)
        people = "one training is" if ahead == 1 else f"{ahead} trainings are"
        return render.note(
            f"You are number {ahead} in the queue: {people} ahead of yours. "
            "It starts by itself; you can leave the page open."
        )
    at = job.progress
    through = 0.0 if at is None else at.epoch - 1 + at.step / at.steps
    curve = "" if at is None else render.loss_curve(dict(job.losses), through, at.epochs)
    if job.state == "done":
        many = f" after {at.epochs} epoch{'s' * (at.epochs > 1)}" if at else ""
        best = f"Best for your photos: {job.best} on those it had not seen" if job.best else ""
        head = render.progress_line(f"Done{many}", best)
        return f"<div class='fc-job' role='status'>{head}{_ON}{curve}</div>"
    if at is not None and through < at.epochs:
        left, loss = f"{clock(at.seconds_left)} left", f"loss {at.loss:.3f}"
        head = render.progress_line(f"Epoch {at.epoch} of {at.epochs}", loss, left)
        bar = render.progress(through / at.epochs)
        return f"<div class='fc-job' role='status'>{head}{bar}{curve}</div>"
    return f"<div class='fc-job' role='status'>{draw_stage(job)}{curve}</div>"


def draw_stage(job: Job) -> str:
    """A job's progress outside of epochs: its stage, the time, a bar."""
    spent = time.monotonic() - job.begun if job.begun else 0.0
    known = job.seconds_left()
    left, share = "", job.share
    if known is not None:
        seconds, at_most = known
        left = f"{'at most ' if at_most else ''}{clock(seconds)} left"
        share = spent / (spent + seconds + 1e-9) if at_most else share
    best = f"Best so far: {job.best}" if job.best and known and known[1] else ""
    head = render.progress_line(f"{job.stage} ...", best, left or clock(spent))
    return head + render.progress(share, moving=True)


def clock(seconds: float) -> str:
    """'2 min 05 s'."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


_ON = render.links(("Try it now", "classify"), ("How good is it?", "results"))
_MICRO = render.note(
    "fewclip's own backbone, micro, is made for trying things out: it is small, looks at images of "
    "64 pixels, and knows some 200 everyday things. For real work, choose one of the others "
    "under Advanced."
)
_MEANING = (
    "<dl class='fc-methods'><dt>Best for my photos</dt><dd>tries several ways on parts of your "
    "photos and keeps the one that does best on those it has not seen. It sets the rest "
    "itself.</dd><dt>Skip Tuning</dt><dd>changes the upper half of CLIP itself. It "
    "learns the most, above all where images are unlike everyday photos, and takes the most time "
    "and memory.</dd><dt>DePT</dt><dd>leaves CLIP as it is, and learns the words around a class "
    "name and a small layer on top. Lighter; and classes added later by name alone suffer "
    "less.</dd></dl>"
)
