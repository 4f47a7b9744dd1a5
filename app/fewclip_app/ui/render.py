"""Figures as HTML that follows the theme: bars, tables, curves. Every text in it is escaped.

Images rendered on the server would stay white in dark mode and blur on a phone.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image as PILImage

from fewclip.decide import Prediction

if TYPE_CHECKING:
    from fewclip.data import Skipped
    from fewclip.report import Report

MATRIX = 30  # most classes for which a confusion matrix is readable
LISTED = 20
BARS = 5  # classes shown with a bar, best scores first
_LEFT, _BELOW = 44.0, 24.0  # of the reliability plot


def step(title: str, lead: str) -> str:
    """Heading of one step of the page; it gets the focus when its step is shown."""
    return f"<h2 tabindex='-1'>{escape(title)}</h2><p>{escape(lead)}</p>"


def links(*targets: tuple[str, str]) -> str:
    """Links to other steps: (text, step); the first is the recommended one."""
    drawn = "".join(
        f"<a class='{'fc-button' if i else 'fc-primary'}' href='#step-{step}'>{escape(text)}</a>"
        for i, (text, step) in enumerate(targets)
    )
    return f"<div class='fc-next'>{drawn}</div>"


def empty(text: str) -> str:
    """An empty state: it says what to do next."""
    return f"<div class='fc-empty'>{escape(text)}</div>"


def note(text: str, kind: str = "") -> str:
    """A remark; a screen reader reads kind "error" out at once."""
    role = "alert" if kind == "error" else "status"
    return f"<div class='fc-note {kind}' role='{role}'>{escape(text)}</div>" if text else ""


def skipped(items: Sequence[Skipped], title: str) -> str:
    """What was not used, and why, one line each."""
    if not items:
        return ""
    lines = "".join(
        f"<li><b>{escape(each.source)}</b>: {escape(plain(each.reason))}</li>"
        for each in items[:LISTED]
    )
    more = f"<li>and {len(items) - LISTED} more</li>" if len(items) > LISTED else ""
    return f"<div class='fc-note' role='status'>{escape(title)}<ul>{lines}{more}</ul></div>"


def address(path: Path) -> str:
    """The URL of a file in the upload store, wherever the page is mounted."""
    return f"gradio_api/file={path}"


def plain(reason: str) -> str:
    """Why an image is not used, for people who cannot install anything here."""
    if reason.startswith("a HEIC photo"):
        return (
            "a HEIC photo, which this page cannot read; send it as JPEG (on an iPhone: Settings, "
            "Camera, Formats, Most Compatible)"
        )
    return reason


def answer(
    image: PILImage.Image | None,
    name: str,
    prediction: Prediction | str,
    extras: Sequence[str] = (),
    below: str = "",
) -> str:
    """One classified image; a `prediction` of text says why it could not be classified.

    Of `prediction.top`, which holds all classes, the best and the typed ones are shown.

    Args:
        below: HTML that follows the scores.
    """
    picture = "" if image is None else f"<img src='{data_uri(image)}' alt='{escape(name)}'>"
    if isinstance(prediction, str):
        return f"<div class='fc-answer'>{picture}<div>{note(prediction, 'error')}</div></div>"
    if prediction.known is not False:
        kind, head = "", f"<strong>{escape(prediction.label)}</strong> {percent(prediction.score)}"
    else:
        kind = "fc-unknown"
        head = "<strong>None of these</strong><br><small>It looks like none of the classes; "
        head += "the nearest ones are:</small>"
    shown = [s for i, s in enumerate(prediction.top) if i < BARS or s.label in extras]
    bars = "".join(bar(label, score) for label, score in shown)
    return (
        f"<div class='fc-answer {kind}'>{picture}<div>{head}{_possible(prediction)}{bars}"
        f"{below}</div></div>"
    )


def _possible(prediction: Prediction) -> str:
    """The possible answers at the requested coverage, if one was requested."""
    if prediction.prediction_set is None or prediction.known is False:
        return ""
    labels = prediction.prediction_set
    if len(labels) == 1:
        return "<p class='fc-possible'>No other class is plausible.</p>"
    listed = ", ".join(f"<b>{escape(label)}</b>" for label in labels[:BARS])
    more = f" and {len(labels) - BARS} more" if len(labels) > BARS else ""
    return f"<p class='fc-possible'>Could be: {listed}{more}</p>"


def bar(label: str, share: float) -> str:
    """One label and its score, 0..1."""
    return (
        f"<div class='fc-bar'><span title='{escape(label)}'>{escape(label)}</span>"
        f"<div class='fc-track'><div class='fc-fill' style='width:{100 * share:.1f}%'></div></div>"
        f"<span>{percent(share)}</span></div>"
    )


def figures(rows: Sequence[tuple[str, str, str]]) -> str:
    """Large numbers: (title, number, remark)."""
    return "".join(
        f"<div class='fc-figure'>{escape(title)}<b>{escape(number)}</b>"
        f"<small>{escape(remark)}</small></div>"
        for title, number, remark in rows
    ).join(("<div class='fc-figures'>", "</div>"))


def per_class(report: Report) -> str:
    """A table row per class: images, recall, precision and F1; the weakest first."""
    rows = "".join(
        f"<tr><td>{escape(label)}</td><td>{row['n']:.0f}</td><td>{percent(row['recall'])}</td>"
        f"<td>{percent(row['precision'])}</td><td>{row['f1']:.2f}</td></tr>"
        for label, row in sorted(report.per_class.items(), key=lambda pair: pair[1]["f1"])
    )
    return (
        "<div class='fc-scroll'><table class='fc-table'><caption hidden>Each class, the weakest "
        "first</caption><thead><tr><th scope='col'>Class</th><th scope='col'>Images</th>"
        "<th scope='col'>Found</th><th scope='col'>Right when answered</th><th scope='col'>F1</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def confusion(report: Report) -> str:
    """Rows are the truth, columns the answers; with many classes only the worst mix-ups."""
    if len(report.classes) > MATRIX:
        pairs = "".join(
            f"<li>{escape(truth)} taken for {escape(answered)}: {count} times</li>"
            for truth, answered, count in report.confused(LISTED)
        )
        return f"<p>The most frequent mix-ups:</p><ul>{pairs or '<li>none</li>'}</ul>"
    head = "".join(f"<th scope='col' title='{escape(c)}'>{escape(c)}</th>" for c in report.classes)
    rows = ""
    for label, counts in zip(report.classes, report.confusion, strict=True):
        total = max(sum(counts), 1)
        cells = "".join(
            _cell(count, count / total, right=answered == label)
            for answered, count in zip(report.classes, counts, strict=True)
        )
        rows += f"<tr><th scope='row' title='{escape(label)}'>{escape(label)}</th>{cells}</tr>"
    return (
        "<div class='fc-scroll'><table class='fc-matrix'><caption hidden>Confusion: rows are the "
        f"truth, columns the answers</caption><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div><small>Rows: what it is. Columns: the answers. "
        "Blue is right, red is a mix-up.</small>"
    )


def _cell(count: int, share: float, *, right: bool) -> str:
    if not count:
        return "<td></td>"
    color = "var(--fc-right)" if right else "var(--fc-wrong)"
    strong = share > 0.75  # no shade in between: neither black nor white would be readable on it
    ink = "color:#fff" if strong else ""
    mix = f"color-mix(in srgb, {color} {92 if strong else 10 + 40 * share:.0f}%, transparent)"
    return f"<td style='background:{mix};{ink}'>{count}</td>"


def reliability(report: Report) -> str:
    """How often answers with a given score are right; on the diagonal, exactly as often."""
    side = 220.0
    x = [_LEFT + (side - _LEFT - 10) * b["confidence"] for b in report.reliability]
    y = [(side - _BELOW) - (side - _BELOW - 10) * b["accuracy"] for b in report.reliability]
    dots = "".join(
        f"<circle class='dot' cx='{a:.1f}' cy='{b:.1f}' fill-opacity='.7' "
        f"r='{3 + 9 * (r['n'] / report.n) ** 0.5:.1f}'>"
        f"<title>{r['n']:.0f} images, score {percent(r['confidence'])}, "
        f"right {percent(r['accuracy'])}</title></circle>"
        for a, b, r in zip(x, y, report.reliability, strict=True)
    )
    return (
        f"<svg class='fc-chart' viewBox='0 0 {side:.0f} {side + 8:.0f}' "
        "role='img' aria-label='Reliability: accuracy against score'>"
        f"<path class='axis' d='M{_LEFT} 10V{side - _BELOW}H{side - 10}' fill='none'/>"
        f"<path class='axis' d='M{_LEFT} {side - _BELOW}L{side - 10} 10' stroke-dasharray='4 4'/>"
        f"<text x='{_LEFT - 6}' y='14' text-anchor='end'>100%</text>"
        f"<text x='{_LEFT - 6}' y='{side - _BELOW}' text-anchor='end'>0%</text>"
        f"<text x='{_LEFT}' y='{side - 8}'>0%</text>"
        f"<text x='{side - 10}' y='{side - 8}' text-anchor='end'>100%</text>"
        f"<text x='{(side + _LEFT) / 2}' y='{side + 4}' text-anchor='middle'>score it gave</text>"
        f"<text x='12' y='{side / 2}' transform='rotate(-90 12 {side / 2})' "
        f"text-anchor='middle'>how often right</text>{dots}</svg>"
    )


def progress_line(head: str, *remarks: str) -> str:
    """What is being done now, and beside it loss, time or the like."""
    beside = "".join(f"<span>{escape(remark)}</span>" for remark in remarks if remark)
    return f"<div class='fc-line'><b>{escape(head)}</b>{beside}</div>"


def progress(share: float | None, *, moving: bool = False) -> str:
    """A bar; None for work of unknown length, `moving` for one that may pause for long."""
    if share is None:
        inner, now = "<div class='fc-fill fc-busy'></div>", ""
    else:
        kind = "fc-fill fc-moving" if moving else "fc-fill"
        inner = f"<div class='{kind}' style='width:{max(2, 100 * share):.1f}%'></div>"
        now = f"aria-valuenow='{100 * share:.0f}'"
    return f"<div class='fc-track' role='progressbar' aria-label='Progress' {now}>{inner}</div>"


def loss_curve(losses: Mapping[int, float], done: float, epochs: int) -> str:
    """Mean loss of each epoch, counted from 1; `done` epochs are finished.

    The line is stretched to the available width, the text beside it is not.
    """
    top = max(losses.values(), default=1.0) * 1.05 or 1.0
    points = [
        (100 * min(epoch, done) / epochs, 100 * (1 - loss / top))
        for epoch, loss in sorted(losses.items())
    ]
    path = " ".join(f"{'L' if i else 'M'}{x:.2f} {y:.2f}" for i, (x, y) in enumerate(points))
    (x, y), now = points[-1], losses[max(losses)]
    return (
        f"<div class='fc-curve'><span>{top:.2f}</span><svg viewBox='0 0 100 100' role='img' "
        f"preserveAspectRatio='none' aria-label='Loss of each epoch, now {now:.3f}'>"
        f"<path d='{path}'/><path class='dot' d='M{x:.2f} {y:.2f}h.01'/></svg><span>0</span>"
        f"<div class='fc-line'><span>loss by epoch</span><span>{epochs}</span></div></div>"
    )


def percent(share: float) -> str:
    """Whole per cent, but never 100% for anything less."""
    whole = share in (0, 1) or 0.0995 <= share < 0.985
    return f"{100 * share:.0f}%" if whole else f"{min(100 * share, 99.9):.1f}%"


def data_uri(image: PILImage.Image) -> str:
    """A small copy of an image as a data URI."""
    small = image.copy()
    small.thumbnail((168, 168))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
