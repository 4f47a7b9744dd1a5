"""The page: five steps, one shown at a time, and how they trigger each other. A step is a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from fewclip.base import BaseClassifier
from fewclip_app import api
from fewclip_app.ui import render
from fewclip_app.ui.browser import script
from fewclip_app.ui.events import EVENT
from fewclip_app.ui.steps import (
    step_adapt,
    step_classify,
    step_download,
    step_images,
    step_results,
    step_suggest,
)
from fewclip_app.work.sessions import Sessions

STEPS = {
    "images": "Images",
    "adapt": "Train",
    "results": "Results",
    "classify": "Try it",
    "download": "Download",
}


def build(sessions: Sessions) -> gr.Blocks:
    """The whole page, over `sessions`."""
    keep = 60 * sessions.settings.keep_minutes
    with gr.Blocks(title="fewclip", analytics_enabled=False, delete_cache=(600, keep)) as blocks:
        token = gr.BrowserState(None, storage_key="fewclip-session")
        gr.HTML(
            "<h1>fewclip</h1><p>A few photos per class in, a working classifier out. "
            "Everything stays on this server.</p>",
            elem_classes="fc-head",
        )
        gr.HTML(_steps(), js_on_load=script("steps"), apply_default_css=False)
        with gr.Column(elem_classes="fc-step", elem_id="step-images"):
            images = step_images.build(sessions)
        with gr.Column(elem_classes="fc-step", elem_id="step-adapt"):
            adapt = step_adapt.build(sessions)
        with gr.Column(elem_classes="fc-step", elem_id="step-results"):
            results = step_results.build(sessions)
        with gr.Column(elem_classes="fc-step", elem_id="step-classify"):
            gr.HTML(
                render.step("Try it", "On photos it has never seen, also of other things."),
                elem_classes="fc-lead",
            )
            panel = step_classify.panel(_asked(sessions), max_pixels=sessions.settings.max_pixels)
            step_suggest.build(sessions, panel, images)
            loaded = step_download.build_load(sessions)
            gr.HTML(render.links(("Download it", "download")))
        with gr.Column(elem_classes="fc-step", elem_id="step-download"):
            download = step_download.build(sessions)

        def restore(kept: str | None, request: gr.Request) -> tuple[Any, ...]:
            workspace, kept = sessions.join(request, kept)
            extras = ", ".join(workspace.model.extras) if workspace.model else ""
            return kept, extras, *images.poll(request)

        # The example's digits lose their meaning when cut in two or mirrored.
        images.example.then(lambda: True, None, adapt.gentle, **EVENT)
        quiet = {**EVENT, "show_progress": "hidden"}
        back = blocks.load(restore, token, [token, panel.names, *images.outputs], **quiet)
        for follow in (back.then, images.summary.change):
            follow(adapt.poll, None, adapt.outputs, **quiet)
        for follow in (back.then, adapt.ended.change, loaded.then):
            follow(results.show, None, results.outputs, **quiet)
            follow(panel.show, [panel.photos, panel.names], panel.answers, **quiet)
            follow(download.poll, None, download.outputs, **quiet)
        blocks.unload(sessions.left)
        api.build(sessions)
    return blocks  # type: ignore[no-any-return]


def _steps() -> str:
    """The current step, and a link to each of them."""
    items = "".join(
        f"<li><a href='#step-{step}'><span>{number}</span>{name}</a></li>"
        for number, (step, name) in enumerate(STEPS.items(), 1)
    )
    return f"<nav class='fc-steps' aria-label='Steps'><ol>{items}</ol></nav>"


def _asked(sessions: Sessions) -> step_classify.Choose:
    def choose(names: Sequence[str], request: gr.Request) -> BaseClassifier | None:
        workspace = sessions.of(request)
        with workspace.lock:
            if workspace.model is None:
                return None
            workspace.model = workspace.model.with_extras(names)
            return workspace.model.classifier

    return choose
