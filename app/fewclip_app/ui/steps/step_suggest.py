"""Below the answers: which of these photos to label and add next, and how to add them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from fewclip.errors import DataError, FewclipError
from fewclip_app.ui import render
from fewclip_app.ui.browser import script
from fewclip_app.ui.events import EVENT, on_error
from fewclip_app.ui.steps.step_classify import AT_ONCE, Panel
from fewclip_app.ui.steps.step_images import Images
from fewclip_app.work.decoding import decode
from fewclip_app.work.sessions import Sessions
from fewclip_app.work.workspace import Workspace

MOST = 6  # photos that are suggested at once


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A photo worth labelling.

    Attributes:
        path, name: of the upload.
        reason: why, for people.
        picture: a small copy as a data URI.
        added: the class that it was added to; "" before that.
    """

    path: Path
    name: str
    reason: str
    picture: str
    added: str = ""


def build(sessions: Sessions, panel: Panel, images: Images) -> None:
    """Lay the suggestions out in the current Blocks."""
    proposals = gr.State([])
    with gr.Accordion("Which of these photos should I add next?", open=False):
        gr.HTML(
            "<small>Drop many photos above that are not labelled yet. Those that are chosen "
            "differ from each other and from what the model has learned. Add them, and train "
            "again.</small>"
        )
        ask = gr.Button("Choose some for me", size="sm", elem_id="suggest")
        shown = gr.HTML(js_on_load=script("suggest"), apply_default_css=False, elem_id="proposals")

    def on_ask(photos: Sequence[tuple[str, str]], request: gr.Request) -> tuple[Any, str]:
        workspace = sessions.of(request)
        try:
            found = propose(workspace, photos)
        except FewclipError as error:
            return [], render.note(str(error), "error")
        return found, draw(found, workspace)

    def on_add(
        found: Sequence[Proposal], event: gr.EventData, request: gr.Request
    ) -> tuple[Any, ...]:
        workspace = sessions.of(request)
        number, name = int(event.number), str(event.to)
        if not 0 <= number < len(found):
            raise DataError("this photo is not suggested any more; ask again")
        add(workspace, found[number], name)
        changed = [
            dataclasses.replace(each, added=name) if i == number else each
            for i, each in enumerate(found)
        ]
        return changed, draw(changed, workspace), *images.poll(request)

    ask.click(on_ask, panel.photos, [proposals, shown], trigger_mode="once", **EVENT)
    quiet = {**EVENT, "show_progress": "hidden"}
    shown.label_as(on_error(on_add), proposals, [proposals, shown, *images.outputs], **quiet)


def propose(workspace: Workspace, photos: Sequence[tuple[str, str]]) -> list[Proposal]:
    """Which of the (path, name) photos to label next, best first.

    Raises:
        DataError: there is no model, or there are no photos to choose from.
        ImageError: a photo cannot be read.
    """
    arrived = [(Path(path), name) for path, name in photos[:AT_ONCE] if path]
    if workspace.model is None:
        raise DataError("there is no model yet; train one in step 2")
    if not arrived:
        raise DataError("there are no photos to choose from; drop some above")
    pixels = workspace.settings.max_pixels
    opened = [decode(path, max_pixels=pixels) for path, _ in arrived]
    found = []
    for each in workspace.model.base.suggest(opened, MOST):
        number = next(i for i, image in enumerate(opened) if image is each.image)
        picture = render.data_uri(opened[number])
        found.append(Proposal(*arrived[number], each.reason, picture))
    return found


def add(workspace: Workspace, proposal: Proposal, name: str) -> None:
    """Put the photo of a proposal into the class of that name.

    Raises:
        DataError: there is no such class, or the photo cannot be taken.
    """
    draft = next((draft for draft in workspace.drafts if draft.name == name), None)
    if draft is None or not proposal.path.is_file():
        gone = f"class {name!r}" if draft is None else "photo"
        raise DataError(f"there is no such {gone} any more; ask for suggestions again")
    before = len(draft.photos)
    workspace.add_photos(draft.key, [(proposal.path, proposal.name)])
    if len(draft.photos) == before:
        raise DataError("; ".join(each.reason for each in draft.refused))


def draw(found: Sequence[Proposal], workspace: Workspace) -> str:
    """Each photo with its reason, and the classes to add it to."""
    if not found:
        return render.note("These photos are all much like those that it has learned from.", "ok")
    names = [draft.name for draft in workspace.drafts if draft.name]
    items = "".join(_item(each, i, names) for i, each in enumerate(found))
    onward = render.links(("Train again", "adapt")) if any(p.added for p in found) else ""
    return f"<ol class='fc-proposals'>{items}</ol>{onward}"


def _item(proposal: Proposal, number: int, names: Sequence[str]) -> str:
    name = escape(proposal.name)
    if proposal.added:
        act = f"<p role='status'>Added to <b>{escape(proposal.added)}</b>.</p>"
    else:
        options = "".join(f"<option>{escape(each)}</option>" for each in names)
        act = (
            f"<select data-number='{number}' aria-label='Class of {name}'>"
            f"<option value=''>Add it to ...</option>{options}</select>"
        )
    return (
        f"<li><img src='{proposal.picture}' alt='{name}'><div><p>{name}<br>"
        f"<small>{escape(proposal.reason)}</small></p>{act}</div></li>"
    )
