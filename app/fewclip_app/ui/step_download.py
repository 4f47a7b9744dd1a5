"""Step 5 of the page: take the model away, or bring one. Files are made when they are asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from fewclip_app.ui import render
from fewclip_app.ui.events import EVENT
from fewclip_app.work import archive, training
from fewclip_app.work.job_queue import user_message
from fewclip_app.work.sessions import Sessions

NAME = "my-classifier"


class Take(NamedTuple):
    """`loaded` follows a model that was brought; `clear` empties what was made of an older one."""

    clear: Any
    outputs: list[Any]


def build(sessions: Sessions) -> Take:
    """Lay the step out in the current Blocks."""
    gr.HTML(
        render.step(
            5,
            "Take it away",
            "The saved model goes on in Python; the ONNX folder is what gets served.",
        ),
        elem_classes="fc-lead",
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260):
            name = gr.Textbox(NAME, label="Name", max_lines=1, elem_id="model-name")
            prepare = gr.Button("Prepare the files", variant="primary", elem_id="prepare")
            status = gr.HTML(elem_id="take-status")
            files = gr.File(
                label="Your model",
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_id="files",
            )
        with gr.Column(scale=3, min_width=260):
            gr.HTML("<h3>Serve it</h3>")
            commands = gr.Code(
                serve_commands(NAME),
                language="shell",
                interactive=False,
                show_label=False,
                elem_id="commands",
            )

    def on_prepare(text: str) -> tuple[Any, ...]:
        said = "Saving, exporting and proving the export: a few seconds to a minute ..."
        return render.note(said), gr.update(visible=False), serve_commands(slug(text))

    def on_save(text: str, request: gr.Request) -> tuple[Any, ...]:
        try:
            made = training.save(sessions.of(request), slug(text))
        except Exception as error:
            return render.note(user_message(error), "error"), gr.update(visible=False)
        done = render.note("Ready: click a size to download.", "ok")
        return done, gr.update(value=[str(path) for path in made], visible=True)

    def clear() -> tuple[Any, ...]:
        return "", gr.update(value=None, visible=False)

    quiet = {**EVENT, "show_progress": "hidden"}
    begun = prepare.click(on_prepare, name, [status, files, commands], trigger_mode="once", **quiet)
    begun.then(on_save, name, [status, files], trigger_mode="once", **quiet)
    return Take(clear, [status, files])


def build_load(sessions: Sessions) -> Any:
    """The way back in: a zip of a saved or exported model; returns the event that it has loaded."""
    with gr.Accordion("Load a model made earlier", open=False):
        gr.HTML(
            "<small>A zip from step 5, or of a folder made by fewclip on another machine.</small>"
        )
        upload = gr.UploadButton(
            "Load a model", file_types=[".zip"], min_width=140, elem_id="model-upload"
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
    """A name that is safe as a folder's and a file's on every system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or NAME


def serve_commands(name: str) -> str:
    """What to type to serve the exported training."""
    return (
        "pip install 'fewclip[service]'\n"
        f"unzip {name}-onnx.zip\n"
        f"fewclip serve {name}-onnx --port 3000\n"
        "\n"
        "# then, from anywhere on this machine:\n"
        "curl -F image=@photo.jpg http://127.0.0.1:3000/v1/predict\n"
    )
