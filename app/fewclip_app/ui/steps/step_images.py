"""Step 1 of the page: classes and their images. The workspace holds them; cards only show it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from fewclip.errors import FewclipError
from fewclip_app.ui import class_cards, findings, render
from fewclip_app.ui.events import EVENT, LOST, uploaded
from fewclip_app.ui.example import example_folder
from fewclip_app.work import archive
from fewclip_app.work.job_queue import user_message
from fewclip_app.work.review import Finding
from fewclip_app.work.sessions import Sessions
from fewclip_app.work.workspace import Workspace

POLL_SECONDS = 1.0  # between two polls of the check of the images


class Images(NamedTuple):
    """`poll(request)` gives a value for each of `outputs`; `example` is the event to chain to."""

    poll: Any
    outputs: Sequence[gr.components.Component]
    example: Any
    summary: gr.HTML


def build(sessions: Sessions) -> Images:
    """Lay the step out in the current Blocks."""
    gr.HTML(
        render.step(
            "Your images",
            "A few photos of each thing to tell apart: 8 to 30 per class are enough. "
            "Name a class as you would say it.",
        ),
        elem_classes="fc-lead",
    )
    with gr.Row(elem_classes="fc-actions"):
        zipped = gr.UploadButton(
            "Upload a zip", file_types=[".zip"], size="sm", elem_id="zip-upload"
        )
        example = gr.Button("Try the example", size="sm")
        clear = gr.Button("Start over", size="sm", elem_classes="fc-quiet")
    remarks = gr.HTML(elem_id="image-remarks")
    review = gr.HTML(elem_id="image-review")
    cards = class_cards.component()
    with gr.Accordion("Test images of your own (optional)", open=False):
        gr.HTML(
            "<small>A zip with a folder per class, named as above. They are never trained on; "
            "without them some of your images are kept back to measure on.</small>"
        )
        test = gr.UploadButton(
            "Upload test images", file_types=[".zip"], size="sm", elem_id="test-upload"
        )
    with gr.Row(elem_classes="fc-foot"):
        summary = gr.HTML(elem_id="image-summary")
        gr.HTML(render.links(("Continue", "adapt")))

    timer = gr.Timer(POLL_SECONDS, active=False)
    outputs = [cards, remarks, summary, review, timer]

    def look(workspace: Workspace) -> tuple[list[Finding], str, Any]:
        """What was found so far, also as text; starts the check if images have changed."""
        workspace.review.begin(workspace, sessions.checks)
        running = workspace.review.running  # before drawing: the last thing shown is the end
        found = workspace.review.open_findings(workspace)
        return found, findings.summarize(workspace.review, found), gr.update(active=running)

    def poll(request: gr.Request) -> tuple[Any, ...]:
        workspace = sessions.of(request)
        found, words, ticking = look(workspace)
        return (
            class_cards.draw(workspace.drafts, found),
            render.skipped(workspace.remarks, class_cards.NOT_USED),
            summarize(workspace),
            words,
            ticking,
        )

    def on_tick(request: gr.Request) -> tuple[Any, ...]:
        if sessions.of(request).review.running:
            return tuple(gr.skip() for _ in outputs)
        drawn, _, summary, *rest = poll(request)
        return drawn, gr.skip(), summary, *rest  # a remark refers to the last action

    def change(act: Callable[..., Any], request: gr.Request) -> tuple[Any, ...]:
        """Do something to the workspace, and show the result."""
        try:
            act(sessions.of(request))
        except Exception as error:
            shown, _, *rest = poll(request)
            return shown, render.note(user_message(error), "error"), *rest
        return poll(request)

    def on_example(request: gr.Request) -> Any:
        return change(load_example, request)

    def on_zip(file: str, request: gr.Request) -> Any:
        return change(lambda w: archive.consume(Path(file), w.read_zip), request)

    def on_test(file: str, request: gr.Request) -> Any:
        return change(lambda w: archive.consume(Path(file), w.read_test), request)

    def on_clear(request: gr.Request) -> Any:
        return change(Workspace.clear, request)

    def on_add(request: gr.Request) -> Any:
        return change(lambda w: w.add_draft(), request)

    def on_remove(event: gr.EventData, request: gr.Request) -> Any:
        return change(lambda w: w.remove_draft(event.key), request)

    def on_delete(event: gr.EventData, request: gr.Request) -> Any:
        return change(lambda w: w.remove_photo(event.key, event.thumb), request)

    def on_move(event: gr.EventData, request: gr.Request) -> Any:
        def move(workspace: Workspace) -> None:
            workspace.move_photo(event.key, event.thumb, str(event.to))
            workspace.review.keep_photo(str(event.thumb))

        return change(move, request)

    def on_keep(event: gr.EventData, request: gr.Request) -> Any:
        return change(lambda w: w.review.kept.add(str(event.finding)), request)

    def on_upload(event: gr.EventData, request: gr.Request) -> Any:
        def take(workspace: Workspace) -> None:
            workspace.rename_draft(event.key, str(event.name))
            files = [(uploaded(sent), str(sent["name"])) for sent in event.sent]
            workspace.add_photos(event.key, files)
            workspace.refuse(event.key, [str(name) for name in event.failed], LOST)

        return change(take, request)

    def on_rename(event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        workspace = sessions.of(request)
        try:
            workspace.rename_draft(event.key, str(event.name))
        except FewclipError as error:
            return render.note(str(error), "error"), gr.skip(), gr.skip()
        return summarize(workspace), *look(workspace)[1:]

    quiet = {**EVENT, "show_progress": "hidden"}
    chosen = example.click(on_example, None, outputs, **EVENT)
    zipped.upload(on_zip, zipped, outputs, **EVENT)
    test.upload(on_test, test, outputs, **EVENT)
    clear.click(on_clear, None, outputs, **quiet)
    many = {**quiet, "trigger_mode": "multiple"}  # images may arrive while others are being taken
    cards.new_class(on_add, None, outputs, **quiet)
    cards.remove(on_remove, None, outputs, **many)
    cards.delete(on_delete, None, outputs, **many)
    cards.upload(on_upload, None, outputs, **many)
    cards.move(on_move, None, outputs, **many)
    cards.keep(on_keep, None, outputs, **many)
    cards.rename(on_rename, None, [summary, review, timer], **many)
    timer.tick(on_tick, None, outputs, **quiet)
    return Images(poll, outputs, chosen, summary)


def load_example(workspace: Workspace) -> None:
    """Replace the workspace's images with the bundled example."""
    copy = workspace.store.new_path("example")
    try:
        example_folder(copy)
        workspace.read_folder(copy)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def summarize(workspace: Workspace) -> str:
    """What there is, and what is missing for step 2."""
    if not workspace.count():
        return render.empty(
            "No images yet. Drop some onto two classes, upload a zip with one folder per class, or "
            "try the example."
        )
    try:
        data = workspace.labelled()
    except FewclipError as error:
        return render.note(str(error)[0].upper() + str(error)[1:] + ".")
    test = f", and {len(workspace.test)} test images" if workspace.test else ""
    return render.note(f"{len(data)} classes with {workspace.count()} images{test}. Ready.", "ok")
