"""Step 5 of the page: download the model, or load one. Files are made when requested."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from fewclip_app.ui import render
from fewclip_app.ui.events import EVENT
from fewclip_app.ui.steps.step_adapt import POLL_SECONDS, clock
from fewclip_app.work import archive, training
from fewclip_app.work.job_queue import Job, user_message
from fewclip_app.work.sessions import Sessions
from fewclip_app.work.workspace import Download, Workspace

NAME = "my-classifier"


class Downloads(NamedTuple):
    """`poll` updates `outputs` and keeps polling while files are made."""

    poll: Any
    outputs: list[Any]


def build(sessions: Sessions) -> Downloads:
    """Lay the step out in the current Blocks."""
    gr.HTML(
        render.step(
            "Download", "The saved model is for Python; the ONNX folder is what you serve."
        ),
        elem_classes="fc-lead",
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260):
            name = gr.Textbox(NAME, label="Name", max_lines=1, elem_id="model-name")
            prepare = gr.Button("Prepare the files", variant="primary", elem_id="prepare")
            status = gr.HTML(elem_id="download-status")
            files = gr.HTML(apply_default_css=False, elem_id="files")
        with gr.Column(scale=3, min_width=260):
            gr.HTML("<h3>Serve it</h3>")
            commands = gr.Code(
                serve_commands(NAME),
                language=None,
                interactive=False,
                show_label=False,
                wrap_lines=True,
                elem_id="commands",
            )
    timer = gr.Timer(POLL_SECONDS, active=False)

    def on_prepare(text: str, request: gr.Request) -> tuple[Any, ...]:
        begin(sessions.of(request), sessions, slug(text))
        return (*poll(request), serve_commands(slug(text)))

    def poll(request: gr.Request) -> tuple[Any, ...]:
        workspace = sessions.of(request)
        download = workspace.download
        if download is None or download.model is not workspace.model:
            return gr.update(interactive=True), "", "", gr.update(active=False)
        if not download.job.finished:
            return gr.update(interactive=False), draw(download), "", gr.update(active=True)
        made = draw_files(download.files)
        return gr.update(interactive=True), draw(download), made, gr.update(active=False)

    outputs = [prepare, status, files, timer]
    quiet = {**EVENT, "show_progress": "hidden"}
    prepare.click(on_prepare, name, [*outputs, commands], trigger_mode="once", **quiet)
    timer.tick(poll, None, outputs, **quiet)
    return Downloads(poll, outputs)


def begin(workspace: Workspace, sessions: Sessions, name: str) -> None:
    """Begin to make the files of the current model, unless that is already running."""

    def work(job: Job) -> None:
        def report_progress(stage: str, share: float) -> None:
            job.begin(stage, share)

        download.files = training.save(workspace, name, report_progress)

    with workspace.lock:
        current = workspace.download
        if current is not None and not current.job.finished:
            if current.model is workspace.model:
                return
            current.job.stop()
        # The job may begin before `submit` returns, and it sets this download's files at its end.
        download = Download(workspace.model, time.monotonic())
        download.job = sessions.exports.submit(work)
        workspace.download = download


def draw(download: Download) -> str:
    """The progress of making the files, as HTML."""
    job = download.job
    if job.state == "failed":
        return render.note(job.error, "error")
    if job.state == "stopped":
        return ""
    if job.state == "done":
        return render.note("Ready.", "ok")
    seconds = clock(time.monotonic() - download.begun)
    head = render.progress_line(f"{job.stage} ...", seconds)
    return (
        f"<div class='fc-job' role='status'>{head}{render.progress(job.share, moving=True)}</div>"
    )


def draw_files(files: Sequence[Path]) -> str:
    """A link to each zip, the saved model first."""
    links = "".join(
        f"<a class='fc-button' href='{escape(render.address(path))}' "
        f"download='{escape(path.name)}'>{escape(path.name)} "
        f"({path.stat().st_size / 1e6:.1f} MB)</a>"
        for path in files
    )
    return f"<div class='fc-files'>{links}</div>" if links else ""


def build_load(sessions: Sessions) -> Any:
    """Upload a zip of a saved or exported model; returns the event that it has been loaded."""
    with gr.Accordion("Load a model made earlier", open=False):
        gr.HTML(
            "<small>A zip from step 5, or of a folder made by fewclip on another machine.</small>"
        )
        upload = gr.UploadButton(
            "Load a model", file_types=[".zip"], size="sm", elem_id="model-upload"
        )
        status = gr.HTML(elem_id="load-status")

    def on_load(file: str, request: gr.Request) -> str:
        workspace = sessions.of(request)
        try:
            archive.consume(Path(file), lambda path: training.load(workspace, path))
        except Exception as error:
            return render.note(user_message(error), "error")
        card = workspace.model.card if workspace.model else None
        return render.note(f"Loaded: {len(card.classes) if card else 0} classes.", "ok")

    return upload.upload(on_load, upload, status, **EVENT)


def slug(text: str) -> str:
    """A name that is safe for folders and files on every system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or NAME


def serve_commands(name: str) -> str:
    """What to type to serve the exported model."""
    return (
        "# where fewclip is installed with its extra 'service':\n"
        f"unzip {name}-onnx.zip\n"
        f"fewclip serve {name}-onnx --port 3000\n"
        "\n"
        "# then, from anywhere on this machine:\n"
        "curl -F image=@photo.jpg http://127.0.0.1:3000/v1/predict\n"
    )
