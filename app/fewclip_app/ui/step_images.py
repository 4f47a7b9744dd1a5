"""Step 1 of the page: classes and their images. The workspace holds them; cards only show it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from fewclip.errors import FewclipError
from fewclip_app.ui import render
from fewclip_app.ui.events import EVENT, told
from fewclip_app.ui.example import example_folder
from fewclip_app.work import archive
from fewclip_app.work.job_queue import user_message
from fewclip_app.work.sessions import Sessions
from fewclip_app.work.workspace import ClassDraft, Workspace

NOT_USED = "Not used:"
CARDS = 24  # classes that get a card; more of them are listed

_counter = itertools.count(1)


class Images(NamedTuple):
    """What other steps need.

    A change of `revision` draws the cards anew; what follows `example` follows its button.
    """

    example: Any
    revision: gr.Textbox
    remarks: gr.HTML
    summary: gr.HTML


def new_revision() -> str:
    """A value that `revision` never had."""
    return str(next(_counter))


def build(sessions: Sessions) -> Images:
    """Lay the step out in the current Blocks."""
    gr.HTML(
        render.step(
            1,
            "Your images",
            "A few photos of each thing to tell apart: 8 to 30 per class are enough. "
            "Name a class as you would say it.",
        ),
        elem_classes="fc-lead",
    )
    with gr.Row(elem_classes="fc-actions"):
        example = gr.Button("Try the example", min_width=140)
        zipped = gr.UploadButton(
            "Upload a zip", file_types=[".zip"], min_width=140, elem_id="zip-upload"
        )
        add = gr.Button("Add a class", min_width=140)
        clear = gr.Button("Start over", min_width=140)
    remarks = gr.HTML(elem_id="image-remarks")
    # Not a gr.State: those change for queued events alone.
    revision = gr.Textbox("0", visible="hidden", label="revision")
    summary = gr.HTML(elem_id="image-summary")

    @gr.render(  # type: ignore[untyped-decorator]
        inputs=revision, triggers=[revision.change], queue=False
    )
    def cards(_: str, request: gr.Request) -> None:
        workspace = sessions.of(request)
        with gr.Row(equal_height=False, elem_classes="fc-cards"):
            for box in workspace.boxes[:CARDS]:
                _card(sessions, box, revision, summary)
        if len(workspace.boxes) > CARDS:
            gr.HTML(_rest(workspace.boxes[CARDS:]))

    with gr.Accordion("Test images of your own (optional)", open=False):
        gr.HTML(
            "<small>A zip with a folder per class, named as above. They are never trained on; "
            "without them some of your images are kept back to measure on.</small>"
        )
        test = gr.UploadButton(
            "Upload test images", file_types=[".zip"], min_width=140, elem_id="test-upload"
        )

    def change(act: Callable[..., None], *given: Any, request: gr.Request) -> tuple[Any, ...]:
        """Do something to the workspace, and show what came of it."""
        workspace = sessions.of(request)
        try:
            act(workspace, *given)
            said = render.skipped(workspace.remarks, NOT_USED)
        except Exception as error:
            said = render.note(user_message(error), "error")
        return new_revision(), said, summarise(workspace)

    def on_example(request: gr.Request) -> tuple[Any, ...]:
        return change(load_example, request=request)

    def on_zip(file: str, request: gr.Request) -> tuple[Any, ...]:
        return change(lambda w: archive.consume(Path(file), w.read_zip), request=request)

    def on_test(file: str, request: gr.Request) -> tuple[Any, ...]:
        return change(lambda w: archive.consume(Path(file), w.read_test), request=request)

    def on_add(request: gr.Request) -> tuple[Any, ...]:
        return change(lambda w: w.add_box(), request=request)

    def on_clear(request: gr.Request) -> tuple[Any, ...]:
        return change(Workspace.clear, request=request)

    outputs = [revision, remarks, summary]
    chosen = example.click(on_example, None, outputs, **EVENT)
    zipped.upload(on_zip, zipped, outputs, **EVENT)
    test.upload(on_test, test, outputs, **EVENT)
    add.click(on_add, None, outputs, **EVENT)
    clear.click(on_clear, None, outputs, **EVENT)
    return Images(chosen, revision, remarks, summary)


def load_example(workspace: Workspace) -> None:
    """The bundled example in place of what is there."""
    copy = workspace.store.new_path("example")
    try:
        example_folder(copy)
        workspace.read_folder(copy)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def summarise(workspace: Workspace) -> str:
    """What there is, and what is missing before step 2."""
    if not workspace.count():
        return render.empty(
            "No images yet. Drop some onto two classes below, upload a zip with one folder per "
            "class, or try the example."
        )
    try:
        data = workspace.labelled()
    except FewclipError as error:
        return render.note(str(error)[0].upper() + str(error)[1:] + ".")
    test = f", and {len(workspace.test)} test images" if workspace.test else ""
    return render.note(
        f"{len(data)} classes with {workspace.count()} images{test}. Ready for step 2.", "ok"
    )


def _card(sessions: Sessions, box: ClassDraft, revision: gr.Textbox, summary: gr.HTML) -> None:
    with gr.Column(min_width=120, elem_classes="fc-card"):
        name = gr.Textbox(
            box.name,
            label="Class name",
            placeholder="what it shows, e.g. ripe tomato",
            max_lines=1,
        )
        photos = gr.Gallery(
            _thumbs(box),
            label=_count(box),
            interactive=True,
            type="filepath",
            file_types=["image"],
            sources=["upload", "webcam", "clipboard"],
            height=150,
            object_fit="cover",
            allow_preview=False,
            buttons=[],
            elem_classes="fc-photos",
        )
        refused = gr.HTML(_refused(box))
        remove = gr.Button("Remove this class", size="sm")

    def rename(name: str, request: gr.Request) -> str:
        workspace = sessions.of(request)
        workspace.rename_box(box.key, name)
        return summarise(workspace)

    def upload(value: Any, name: str, request: gr.Request) -> tuple[Any, ...]:
        workspace = sessions.of(request)
        workspace.rename_box(box.key, name)  # it may have been typed a moment ago
        known = {str(photo.thumb) for photo in box.photos}
        new = [Path(path) for path, _ in value or [] if path not in known]
        workspace.add_photos(box.key, [(path, path.name) for path in new])
        return _gallery(box), _refused(box), summarise(workspace)

    def delete(value: Any, request: gr.Request) -> tuple[Any, ...]:
        workspace = sessions.of(request)
        workspace.keep_photos(box.key, [path for path, _ in value or []])
        return _gallery(box), _refused(box), summarise(workspace)

    def drop(request: gr.Request) -> tuple[Any, ...]:
        workspace = sessions.of(request)
        workspace.remove_box(box.key)
        return new_revision(), summarise(workspace)

    quiet = {**EVENT, "show_progress": "hidden"}
    for typed in (name.change, name.blur):
        typed(told(rename), name, summary, trigger_mode="always_last", **quiet)
    photos.upload(told(upload), [photos, name], [photos, refused, summary], **quiet)
    photos.delete(told(delete), photos, [photos, refused, summary], **quiet)
    remove.click(told(drop), None, [revision, summary], **quiet)


def _gallery(box: ClassDraft) -> Any:
    return gr.update(value=_thumbs(box), label=_count(box))


def _thumbs(box: ClassDraft) -> list[str]:
    return [str(photo.thumb) for photo in box.photos]


def _count(box: ClassDraft) -> str:
    return f"Images: {len(box.photos)}" if box.photos else "Images"


def _refused(box: ClassDraft) -> str:
    return render.skipped(box.refused, NOT_USED)


def _rest(boxes: Sequence[ClassDraft]) -> str:
    rows = "".join(
        f"<tr><td>{escape(box.name)}</td><td>{len(box.photos)}</td></tr>" for box in boxes
    )
    return (
        f"<details><summary>and {len(boxes)} more classes</summary><table class='fc-table'><tr>"
        f"<th scope='col'>Class</th><th scope='col'>Images</th></tr>{rows}</table></details>"
    )
