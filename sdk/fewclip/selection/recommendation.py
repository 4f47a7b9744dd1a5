"""The outcome of `compare` as a table and a recommendation. It runs nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.report import wilson

_Z = 1.959964  # 95 %
_QUICKER = 0.67  # of the best one's time; a smaller difference is not worth mentioning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One method, all its folds together.

    Attributes:
        right: (N,) int8, one per image: 1 right, 0 wrong, -1 not evaluated.
        n: images evaluated.
        folds: how many it finished.
        seconds: mean per fold, training and prediction.
        peak_mb: peak memory in MiB, the highest of any fold.
        outside: whether it is a baseline, not a method of fewclip's.
        given_up: whether the budget left some of its folds out.
        arguments: those of `fewclip adapt` that do the same; "" for a baseline.
    """

    method: str
    right: npt.NDArray[np.int8]
    n: int
    folds: int
    seconds: float
    peak_mb: float
    outside: bool = False
    given_up: bool = False
    arguments: str = ""

    @property
    def accuracy(self) -> float:
        """Share of the evaluated images that were answered right; 0 if there are none."""
        return float((self.right == 1).sum() / self.n) if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95 % Wilson interval."""
        return wilson(self.accuracy, self.n)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only."""
        plain = {k: v for k, v in dataclasses.asdict(self).items() if k != "right"}
        return {**plain, "accuracy": self.accuracy, "interval": list(self.interval)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found.

    Attributes:
        best: the method to use.
        advice: why, in a few sentences.
        rows: in the order in which they were tried.
        folds, images: of the whole cross-validation.
        seconds, budget: used and allowed.
        notes: what a reader should know about the data.
    """

    best: str
    advice: str
    rows: tuple[Row, ...]
    folds: int
    images: int
    seconds: float
    budget: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**plain, "rows": [row.to_dict() for row in self.rows], "notes": list(self.notes)}

    def __str__(self) -> str:
        width = max(len(row.method) for row in self.rows)
        lines = [f"{'method':<{width}}  accuracy  95 % interval   folds  s/fold  peak MB"]
        for row in sorted(self.rows, key=lambda r: -r.accuracy):
            if not row.n:
                lines.append(f"{row.method:<{width}}  not tried: the budget ended first")
                continue
            low, high = row.interval
            lines.append(
                f"{row.method:<{width}}  {row.accuracy:>8.1%}  {low:>5.1%} to {high:>5.1%}"
                f"  {row.folds:>2}/{self.folds:<2}  {row.seconds:>6.1f}  {row.peak_mb:>7.0f}"
            )
        return "\n".join([*lines, "", self.advice, *(f"note: {note}" for note in self.notes)])


def advise(
    rows: Sequence[Row],
    *,
    folds: int,
    images: int,
    seconds: float,
    budget: float,
    notes: Sequence[str],
) -> Comparison:
    """Choose the most accurate of fewclip's methods, and say where others are as good or better.

    Two methods are compared on the images evaluated with both, so a budget that ends within a fold
    favours neither.
    """
    own = [row for row in rows if row.n and not row.outside]
    anchor = max(own, key=lambda row: row.folds)
    best = _unbeaten(max(own, key=lambda row: difference(row, anchor)[1]), own)
    low, high = best.interval
    sentences = [
        f"Use {best.method}: {best.accuracy:.1%} of {best.n} images right, and between {low:.1%} "
        f"and {high:.1%} with 95 % confidence."
        + (f" (fewclip adapt {best.arguments})" if best.arguments else "")
    ]
    rivals = [row for row in own if row is not best]
    alike = [row for row in rivals if _alike(row, best)]
    quicker = [row.method for row in alike if row.seconds < _QUICKER * best.seconds]
    others = [row.method for row in alike if row.method not in quicker]
    if quicker:
        sentences.append(f"As good within the interval, and quicker: {_listed(quicker)}.")
    if others:
        sentences.append(f"As good within the interval: {_listed(others)}.")
    if not alike and rivals:
        sentences.append("It is ahead of every other method tried by more than chance.")
    for row in rows:
        if row.outside and row.n and difference(row, best)[0] > 0:
            sentences.append(
                f"Outside fewclip, {row.method} is ahead of it by more than chance "
                f"({row.accuracy:.1%})."
            )
    sentences += _unfinished(rows, folds, budget)
    return Comparison(
        best=best.method,
        advice=" ".join(sentences),
        rows=tuple(rows),
        folds=folds,
        images=images,
        seconds=seconds,
        budget=budget,
        notes=tuple(notes),
    )


def difference(one: Row, other: Row) -> tuple[float, float, float]:
    """(low, mean, high) of accuracy(one) - accuracy(other), 95 %, on images evaluated with both."""
    both = (one.right >= 0) & (other.right >= 0)
    n = int(both.sum())
    if n == 0:
        return -1.0, 0.0, 1.0
    gap = one.right[both].astype(float) - other.right[both]
    half = _Z * math.sqrt(gap.var() / n)
    return float(gap.mean() - half), float(gap.mean()), float(gap.mean() + half)


def _unbeaten(best: Row, rows: Sequence[Row]) -> Row:
    """`best`, or an unbeaten method that beats it by more than chance on the images of both.

    A row that was measured on one fold may have been lucky with its images.
    """
    passed = {best.method}
    while better := next(
        (r for r in rows if r.method not in passed and difference(r, best)[0] > 0), None
    ):
        best = better
        passed.add(best.method)
    return best


def _alike(row: Row, best: Row) -> bool:
    """Whether the images cannot tell the two apart."""
    return difference(row, best)[2] >= 0


def _unfinished(rows: Sequence[Row], folds: int, budget: float) -> list[str]:
    untried = [row.method for row in rows if not row.n]
    partly = [
        f"{row.method} ({row.folds} of {folds} folds)" for row in rows if row.given_up and row.n
    ]
    said = []
    if untried:
        said.append(f"The budget of {budget:.0f} s ended before {_listed(untried)} could be tried.")
    if partly:
        said.append(
            f"It cut short {_listed(partly)}; a larger --budget would narrow the intervals."
        )
    return said


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
