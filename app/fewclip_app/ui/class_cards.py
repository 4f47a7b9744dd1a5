"""The classes of step 1 as HTML: one card each, with its name and its images. It changes nothing.

All cards are one component, which the browser updates in place. A Gradio gallery would show an
upload from its first path, and request it again after it has been moved from there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

import gradio as gr

from fewclip_app.ui import findings, render
from fewclip_app.ui.browser import script
from fewclip_app.work.review import Finding
from fewclip_app.work.uploads import Photo
from fewclip_app.work.workspace import ClassDraft

NOT_USED = "Not used:"
CARDS = 24  # classes that get a card; the others are listed
SHOWN = 10  # images of a card that are shown at first; the others are behind a click
ACCEPT = "image/*,.heic,.heif,.avif"  # also by suffix: Chromium does not count HEIC as an image


def component() -> gr.HTML:
    """The component; its events are new_class, remove, rename, upload, delete, move and keep."""
    return gr.HTML(
        draw([]),
        js_on_load=script("images", "cards"),
        apply_default_css=False,
        elem_id="class-cards",
    )


def draw(drafts: Sequence[ClassDraft], found: Sequence[Finding] = ()) -> str:
    """All classes, the findings about their images, and the field that adds a class."""
    cards = "".join(_card(draft, number, found) for number, draft in enumerate(drafts[:CARDS], 1))
    add = "<button type='button' class='fc-add' data-act='add'>+ Add a class</button>"
    return f"<div class='fc-cards'>{cards}{add}</div>{_rest(drafts[CARDS:])}"


def _card(draft: ClassDraft, number: int, found: Sequence[Finding]) -> str:
    own = [each for each in found if each.photo in draft.photos]
    doubtful = {each.photo for each in own if each.photo}
    name = escape(draft.name)
    who = name or f"class {number}"
    return (
        f"<section class='fc-card' data-key='{draft.key}' aria-label='{who}'>"
        "<div class='fc-card-head'>"
        f"<input class='fc-name' type='text' data-name='{name}' maxlength='200' "
        "aria-label='Class name' placeholder='Name, e.g. ripe tomato' autocomplete='off'>"
        "<button type='button' class='fc-icon' data-act='remove' title='Remove this class' "
        f"aria-label='Remove {who}'>&#10005;</button></div>"
        f"{_images(draft.photos, doubtful)}{findings.draw(own, draft.name)}"
        f"<div class='fc-card-foot'><span>{_count(draft)}</span>"
        "<button type='button' class='fc-button fc-small' data-act='choose'>Add images</button>"
        "<button type='button' class='fc-button fc-small' data-act='camera'>Webcam</button></div>"
        "<p class='fc-status' role='status'></p>"
        f"{render.skipped(draft.refused, NOT_USED)}"
        f"<input type='file' hidden multiple accept='{ACCEPT}'></section>"
    )


def _images(photos: Sequence[Photo], doubtful: Collection[Photo]) -> str:
    if not photos:
        return "<div class='fc-drop' data-act='choose'>Drop images here, or paste them</div>"
    rest = photos[SHOWN:]
    more = ""
    if rest:
        thumbs = "".join(_thumb(photo, "lazy", photo in doubtful) for photo in rest)
        more = (
            f"<details><summary>and {len(rest)} more</summary>"
            f"<div class='fc-thumbs'>{thumbs}</div></details>"
        )
    first = "".join(_thumb(photo, "eager", photo in doubtful) for photo in photos[:SHOWN])
    return f"<div class='fc-thumbs'>{first}</div>{more}"


def _thumb(photo: Photo, loading: str, doubtful: bool) -> str:
    name, kind = escape(photo.source), " class='fc-doubtful'" if doubtful else ""
    return (
        f"<figure{kind}><img src='{escape(render.address(photo.thumb))}' loading='{loading}' "
        f"alt='{name}'>"
        f"<button type='button' data-act='delete' data-thumb='{photo.thumb.name}' "
        f"aria-label='Delete {name}' title='Delete'>&#10005;</button></figure>"
    )


def _count(draft: ClassDraft) -> str:
    count = len(draft.photos)
    return f"{count} image{'s' * (count != 1)}"


def _rest(drafts: Sequence[ClassDraft]) -> str:
    if not drafts:
        return ""
    rows = "".join(
        f"<tr><td>{escape(draft.name)}</td><td>{len(draft.photos)}</td></tr>" for draft in drafts
    )
    return (
        f"<details><summary>and {len(drafts)} more classes</summary><table class='fc-table'><tr>"
        f"<th scope='col'>Class</th><th scope='col'>Images</th></tr>{rows}</table></details>"
    )
