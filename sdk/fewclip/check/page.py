"""The report as one HTML page: no script, nothing fetched, thumbnails inside."""

from __future__ import annotations

import base64
import io
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from fewclip.check.issue import KINDS, Issue
from fewclip.errors import ImageError
from fewclip.images import Image, decode

if TYPE_CHECKING:
    from fewclip.check.report import DataReport

THUMB = 112  # side of a thumbnail, pixels
SHOWN = 200  # issues of one kind on the page; report.json has all

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff; }
h2 { margin-top: 2.5rem; border-top: 1px solid #d0d7de; padding-top: 1rem; }
article { display: flex; gap: 1rem; padding: .8rem 0; border-bottom: 1px solid #e5e9ed; }
figure { margin: 0; } img { height: 7rem; border-radius: 6px; image-rendering: auto; }
.near img { height: 4.5rem; } .near { display: flex; gap: .4rem; flex-wrap: wrap; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; } p { margin: .2rem 0; }
.advice { color: #57606a; } nav a { margin-right: 1rem; }
@media (prefers-color-scheme: dark) {
  body { color: #dde3e9; background: #14171a; } .advice { color: #9aa4ae; }
  h2, article { border-color: #333a41; } a { color: #7ab8ff; } }
"""


def render(report: DataReport) -> str:
    """The whole page."""
    title = escape(f"Data check: {report.name}")
    total = sum(report.classes.values())
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{total} images of {len(report.classes)} classes.</p>"
    ]
    if not report.issues:
        parts.append("<p>Nothing found.</p>")
    else:
        links = (
            f'<a href="#{kind}">{escape(KINDS[kind].capitalize())} ({n})</a>'
            for kind, n in report.counts.items()
        )
        parts.append(f"<nav>{''.join(links)}</nav>")
    thumbs: dict[str, str] = {}
    for kind, group in groupby(report.issues, key=lambda issue: issue.kind):
        issues = list(group)
        parts.append(f'<h2 id="{kind}">{escape(KINDS[kind].capitalize())}</h2>')
        parts += [_article(issue, report, thumbs) for issue in issues[:SHOWN]]
        if len(issues) > SHOWN:
            parts.append(f"<p>And {len(issues) - SHOWN} more, in report.json.</p>")
    parts.append(
        "<p>Suggested fixes are in <code>fixes.csv</code>: delete the rows that are wrong, then "
        "<code>fewclip adapt DATA --fixes fixes.csv --out MODEL</code>. No file is changed.</p>"
        "</body></html>"
    )
    return "".join(parts)


def _article(issue: Issue, report: DataReport, thumbs: dict[str, str]) -> str:
    label = f" in <b>{escape(issue.label)}</b>" if issue.label else ""
    near = "".join(_figure(source, report, thumbs) for source in issue.neighbours)
    near = f'<div class="near">{near}</div>' if near else ""
    return (
        f"<article>{_figure(issue.source, report, thumbs)}<div>"
        f"<p><code>{escape(issue.source)}</code>{label}</p><p>{escape(issue.reason)}</p>"
        f'<p class="advice">{escape(issue.advice)}</p>{near}</div></article>'
    )


def _figure(source: str, report: DataReport, thumbs: dict[str, str]) -> str:
    if source not in report.images:
        return ""
    if source not in thumbs:
        thumbs[source] = thumbnail(report.images[source])
    name = escape(source, quote=True)
    return f'<figure><img src="{thumbs[source]}" alt="{name}" title="{name}"></figure>'


def thumbnail(image: Image) -> str:
    """A data URI; empty if the image can no longer be read."""
    try:
        small = decode(image)
    except ImageError:
        return ""
    small.thumbnail((2 * THUMB, 2 * THUMB))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
