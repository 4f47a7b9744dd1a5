"""Plots of a report, as PNG bytes. Computes no numbers; matplotlib is imported on first use."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fewclip.errors import MissingExtraError

if TYPE_CHECKING:
    from fewclip.report import Report

LONGEST_LABEL = 24
MOST_NUMBERS = 25  # classes; with more, cells are too small to show their counts
MOST_LABELS = 80


def confusion(report: Report) -> bytes:
    """The confusion matrix as PNG: rows are the truth and sum to 1 in colour, cells show counts.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    counts = np.asarray(report.confusion, dtype=np.float64)  # (M, M)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    m = len(report.classes)
    side = min(max(4.5, 0.42 * m + 2.5), 16.0)
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, fraction=0.046, label="share of the class's images")
    axes.set(xlabel="answer", ylabel="truth", title=f"{report.accuracy:.1%} of {report.n} right")
    if m <= MOST_LABELS:
        # Labels are user text: a dollar sign in one must not start a formula.
        names = [_short(label) for label in report.classes]
        axes.set_xticks(range(m), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(m), names, fontsize=8, parse_math=False)
    if m <= MOST_NUMBERS:
        for i, j in zip(*np.nonzero(counts), strict=True):
            ink = "white" if shares[i, j] > 0.55 else "black"
            axes.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", color=ink, fontsize=8)
    return to_png(figure)


def reliability(report: Report) -> bytes:
    """Accuracy against confidence as PNG; on the diagonal, a score of 0.8 is right 8 times in 10.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(5.0, 5.0)
    axes = figure.add_subplot()
    x = [b["confidence"] for b in report.reliability]
    y = [b["accuracy"] for b in report.reliability]
    sizes = [20 + 400 * b["n"] / report.n for b in report.reliability]
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="perfect")
    axes.plot(x, y, color="tab:blue", linewidth=1)
    axes.scatter(x, y, s=sizes, color="tab:blue", alpha=0.7, label="images, larger is more")
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"calibration error {report.ece:.3f}")
    axes.legend(loc="upper left", fontsize=8)
    return to_png(figure)


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure, `width` x `height` inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    # Not pyplot: it keeps global state and may open a display; a service can afford neither.
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing pictures", "train") from error
    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure: Any) -> bytes:
    """A figure as PNG bytes."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes; report.json has it in full.
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        figure.savefig(out, format="png", dpi=120, bbox_inches="tight")
    return out.getvalue()


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"
