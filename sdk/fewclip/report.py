"""How good a classifier is on labelled images: numbers and tables. No model, no torch.

The plots that `Report.save` writes are drawn in `fewclip.plots`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.contract import plain_json
from fewclip.errors import DataError

BINS = 15  # equally wide confidence bins, as many as in Guo et al. 2017 (arXiv 1706.04599)
TABLE_ROWS = 25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """How predictions compare with the truth.

    Attributes:
        accuracy: share of images whose best class is the right one, 0..1.
        macro_f1: F1 averaged over the classes that occur in the truth or the predictions, as in
            scikit-learn; a class that occurs in neither is left out.
        per_class: label -> {"precision", "recall", "f1" in 0..1, "n" images}; a ratio with
            denominator 0 is 0.
        confusion: `confusion[i][j]` images of class i were predicted as class j.
        ece: expected calibration error, 0..1: the gap between confidence and accuracy, averaged
            over 15 equally wide confidence bins, weighted by their number of images.
        reliability: the non-empty bins, {"confidence", "accuracy", "n"}, by rising confidence.
        n: images evaluated.
        classes: labels in the order of `confusion`.
        skipped: {"source", "reason"} of each file that was not evaluated.
    """

    accuracy: float
    macro_f1: float
    per_class: Mapping[str, Mapping[str, float]]
    confusion: Sequence[Sequence[int]]
    ece: float
    reliability: Sequence[Mapping[str, float]]
    n: int
    classes: tuple[str, ...]
    skipped: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def from_predictions(
        cls,
        probabilities: npt.NDArray[np.floating[Any]],
        labels: Sequence[int] | npt.NDArray[np.integer[Any]],
        classes: Sequence[str],
        skipped: Sequence[Mapping[str, str]] = (),
    ) -> Report:
        """Compare `probabilities` (N, M), rows summing to 1, with `labels` (N,), class indices.

        Raises:
            DataError: there are no images.
        """
        given = np.asarray(probabilities, dtype=np.float64)
        truth = np.asarray(labels, dtype=np.int64)
        if truth.size == 0:
            raise DataError(
                "there is no labelled image to evaluate on; give a folder with one sub-folder per "
                "class, named as the model's classes are"
            )
        assert given.shape == (truth.size, len(classes)), (given.shape, truth.size, len(classes))
        answers = given.argmax(axis=1)
        confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(confusion, (truth, answers), 1)
        per_class = _per_class(confusion, classes)
        f1 = [per_class[classes[i]]["f1"] for i in np.union1d(truth, answers)]
        bins = _reliability(given.max(axis=1), answers == truth)
        gaps = [b["n"] * abs(b["confidence"] - b["accuracy"]) for b in bins]
        return cls(
            accuracy=float((answers == truth).mean()),
            macro_f1=float(np.mean(f1)),
            per_class=per_class,
            confusion=confusion.tolist(),
            ece=sum(gaps) / truth.size,
            reliability=bins,
            n=int(truth.size),
            classes=tuple(classes),
            skipped=tuple(skipped),
        )

    def accuracy_interval(self) -> tuple[float, float]:
        """The accuracy's 95 % Wilson interval, (low, high) in 0..1; the fewer images, the wider."""
        return wilson(self.accuracy, self.n)

    def confused(self, most: int = 3) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: (class, what it was taken for, how often)."""
        table = np.asarray(self.confusion)
        np.fill_diagonal(table, 0)
        order = np.argsort(-table, axis=None, kind="stable")[:most]
        pairs = zip(*np.unravel_index(order, table.shape), strict=True)
        return [
            (self.classes[i], self.classes[j], int(table[i, j])) for i, j in pairs if table[i, j]
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only."""
        low, high = self.accuracy_interval()
        return {
            "accuracy": self.accuracy,
            "accuracy_interval": [low, high],
            "macro_f1": self.macro_f1,
            "ece": self.ece,
            "n": self.n,
            "classes": list(self.classes),
            "per_class": {label: dict(row) for label, row in self.per_class.items()},
            "confusion": [list(row) for row in self.confusion],
            "reliability": [dict(b) for b in self.reliability],
            "skipped": [dict(s) for s in self.skipped],
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write report.json, confusion.png and reliability.png into `folder`, created if missing.

        Raises:
            MissingExtraError: matplotlib is not installed; nothing is written.
        """
        from fewclip import plots

        matrix = plots.confusion(self)
        curve = plots.reliability(self)
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        text = json.dumps(plain_json(self.to_dict()), indent=2, ensure_ascii=False) + "\n"
        (target / "report.json").write_text(text, encoding="utf-8")
        (target / "confusion.png").write_bytes(matrix)
        (target / "reliability.png").write_bytes(curve)

    def __str__(self) -> str:
        low, high = self.accuracy_interval()
        lines = [
            f"accuracy {self.accuracy:.1%} ({low:.1%} to {high:.1%} with 95 % confidence), "
            f"macro F1 {self.macro_f1:.3f}, calibration error {self.ece:.3f}, {self.n} images",
        ]
        if self.skipped:
            lines.append(f"{len(self.skipped)} files were not evaluated")
        evaluated = [(label, row) for label, row in self.per_class.items() if row["n"]]
        shown = evaluated
        if len(evaluated) > TABLE_ROWS:
            shown = sorted(evaluated, key=lambda pair: pair[1]["f1"])[:TABLE_ROWS]
            lines.append(f"the {TABLE_ROWS} weakest of {len(evaluated)} classes:")
        width = max(len("class"), *(len(label) for label, _ in shown))
        lines.append(f"{'class':<{width}}  images  precision  recall     F1")
        lines += [
            f"{label:<{width}}  {row['n']:>6.0f}  {row['precision']:>9.3f}  {row['recall']:>6.3f}"
            f"  {row['f1']:.3f}"
            for label, row in shown
        ]
        mistakes = [f"{a} for {b} ({count})" for a, b, count in self.confused()]
        if mistakes:
            lines.append(f"most often mistaken: {', '.join(mistakes)}")
        return "\n".join(lines)


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % Wilson interval, (low, high) in 0..1, of a share seen in n cases."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)


def _per_class(
    confusion: npt.NDArray[np.int64], classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    rows = {}
    for i, label in enumerate(classes):
        right, n, answered = (
            int(v) for v in (confusion[i, i], confusion[i].sum(), confusion[:, i].sum())
        )
        rows[label] = {
            "precision": right / answered if answered else 0.0,
            "recall": right / n if n else 0.0,
            "f1": 2 * right / (n + answered) if n + answered else 0.0,
            "n": n,
        }
    return rows


def _reliability(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]
) -> list[dict[str, float]]:
    """Bins (low, high] of confidence (N,), the first closed; `right` (N,): which were correct."""
    index = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return [
        {
            "confidence": float(confidence[index == b].mean()),
            "accuracy": float(right[index == b].mean()),
            "n": int((index == b).sum()),
        }
        for b in np.unique(index)
    ]
