"""What was found in the images of a class, as questions with buttons. It changes nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fewclip_app.ui import render
from fewclip_app.work.review import Finding, Review
from fewclip_app.work.uploads import Photo

MOST = 4  # findings of a class shown at once; answered ones make room for others

# Why it is asked, where the question itself does not say so.
_ODD = {
    "outlier": "It is unlike all the others.",
    "empty": "There is nothing to see in it.",
    "dark": "It is much darker than the others.",
    "bright": "It is much brighter than the others.",
    "blurred": "It is much more blurred than the others.",
    "tiny": "It is tiny.",
    "shape": "It is oddly shaped: its edges are cut off before the model sees it.",
}


def draw(found: Sequence[Finding], name: str) -> str:
    """Findings of the class called `name`, as HTML."""
    if not found:
        return ""
    items = "".join(_item(each, name) for each in found[:MOST])
    rest = len(found) - MOST
    more = f"<li><small>and {rest} more, once these are answered</small></li>" if rest > 0 else ""
    return f"<ul class='fc-findings' aria-label='Look at these'>{items}{more}</ul>"


def summarize(review: Review, found: Sequence[Finding]) -> str:
    """The check's progress, and its findings about whole classes."""
    if review.running:
        return "<small role='status'>Looking for doubtful images in the background ...</small>"
    if review.job is None:
        return ""
    if review.job.state == "failed":
        return "<small role='status'>The images could not be checked; train on them anyway.</small>"
    classes = [each for each in found if each.photo is None]
    images = len(found) - len(classes)
    lines = "".join(f"<li>{escape(each.reason)}</li>" for each in classes)
    if images:
        some = "1 image is" if images == 1 else f"{images} images are"
        lines += f"<li>{some} worth a second look, marked below</li>"
    if not lines:
        return "<small role='status'>The images were checked: nothing looks wrong.</small>"
    return f"<div class='fc-note' role='status'>Before you train<ul>{lines}</ul></div>"


def _item(finding: Finding, name: str) -> str:
    assert finding.photo is not None
    thumb = finding.photo.thumb.name
    pictures = "".join(_picture(photo) for photo in (finding.photo, finding.other) if photo)
    move = ""
    if finding.kind == "label" and finding.likelier:
        move = _button(
            f"Move to {finding.likelier}", "move", thumb, f" data-to='{escape(finding.likelier)}'"
        )
    leave = _button("Leave one out" if finding.other else "Leave it out", "delete", thumb)
    keep = _button("Keep", "keep", escape(finding.id))
    return (
        f"<li><div class='fc-pair'>{pictures}</div><div><p>{escape(_question(finding, name))}</p>"
        f"{move}{leave}{keep}</div></li>"
    )


def _question(finding: Finding, name: str) -> str:
    called = f"\u201c{name}\u201d" if name else "of this class"
    if finding.kind == "duplicate":
        return "These two look the same."
    if finding.kind == "conflict":
        return "These two look the same, and are in different classes."
    if finding.kind == "label":
        return f"Is this really {called}? It looks more like \u201c{finding.likelier}\u201d."
    return f"Is this really {called}? {_ODD.get(finding.kind, finding.reason)}"


def _picture(photo: Photo) -> str:
    return f"<img src='{escape(render.address(photo.thumb))}' alt='{escape(photo.source)}'>"


def _button(text: str, act: str, thumb: str, more: str = "") -> str:
    return (
        f"<button type='button' class='fc-button fc-small' data-act='{act}' "
        f"data-thumb='{thumb}'{more}>{escape(text)}</button>"
    )
