"""The outcome of `compare` as a table and a recommendation. It runs nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fewclip.report import wilson
from fewclip.selection.evaluated import OUT_OF_TIME, Evaluated, choose, difference

_NAMED = 3  # methods that a sentence names; the table has all
_QUICKER = 0.67  # of the best one's time; a smaller difference is not worth mentioning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One method, all its folds together.

    Attributes:
        right: (N,) int8, one per image: 1 right, 0 wrong, -1 not evaluated.
        n: images evaluated.
        accuracy: share of these that were answered right; 0 if there are none.
        interval: the accuracy's 95 % Wilson interval.
        log_loss: mean over these; None for a baseline, which gives no probabilities.
        folds: how many it finished.
        seconds: mean per fold of what trains, training and prediction; of anything else, all of it.
        peak_mb: peak memory in MiB, the highest of any fold.
        outside: whether it is a baseline, not a method of fewclip's.
        given_up: whether the budget left some of its folds out.
        arguments: those of `fewclip adapt` that do the same; "" for a baseline.
    """

    method: str
    right: npt.NDArray[np.int8]
    n: int
    accuracy: float
    interval: tuple[float, float]
    log_loss: float | None
    folds: int
    seconds: float
    peak_mb: float
    outside: bool
    given_up: bool
    arguments: str

    @classmethod
    def of(cls, row: Evaluated, fold: npt.NDArray[np.int64]) -> Self:
        """Args: fold: (N,) of each image."""
        evaluated, candidate = row.images, row.candidate
        n = int(evaluated.sum())
        return cls(
            method=candidate.name,
            right=np.where(evaluated, row.right, -1).astype(np.int8),
            n=n,
            accuracy=row.accuracy,
            interval=wilson(row.accuracy, n),
            log_loss=float(row.loss[evaluated].mean()) if n and not candidate.outside else None,
            folds=len(np.unique(fold[evaluated])),
            seconds=row.seconds,
            peak_mb=max((cost.peak_mb for cost in row.costs), default=0.0),
            outside=candidate.outside,
            given_up=row.note == OUT_OF_TIME,
            arguments=candidate.arguments,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only."""
        plain = {k: v for k, v in dataclasses.asdict(self).items() if k != "right"}
        return {**plain, "interval": list(self.interval)}


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
        columns = "accuracy  95 % interval     log-loss  folds  seconds  peak MB"
        lines = [f"{'method':<{width}}  {columns}"]
        for row in sorted(self.rows, key=lambda r: -r.accuracy):
            if not row.n:
                lines.append(f"{row.method:<{width}}  not tried: {OUT_OF_TIME}")
                continue
            low, high = row.interval
            loss = "-" if row.log_loss is None else f"{row.log_loss:.3f}"
            lines.append(
                f"{row.method:<{width}}  {row.accuracy:>8.1%}  {low:>6.1%} to {high:>6.1%}"
                f"  {loss:>8}  {row.folds:>2}/{self.folds:<2}  {row.seconds:>7.1f}"
                f"  {row.peak_mb:>7.0f}"
            )
        return "\n".join([*lines, "", self.advice, *(f"note: {note}" for note in self.notes)])


def advise(
    rows: Sequence[Evaluated],
    fold: npt.NDArray[np.int64],
    *,
    seconds: float,
    budget: float,
    notes: Sequence[str],
) -> Comparison:
    """Choose one of fewclip's methods as "auto" does, and say where others are as good or better.

    Two methods are compared on the images evaluated with both, so a budget that ends within a fold
    favours neither.

    Args:
        fold: (N,) of each image.
    """
    own = [row for row in rows if row.images.any() and not row.candidate.outside]
    best, folds = choose(own), int(fold.max()) + 1
    listed = [Row.of(row, fold) for row in rows]
    chosen = listed[rows.index(best)]
    low, high = chosen.interval
    sentences = [
        f"Use {chosen.method}: {chosen.accuracy:.1%} of {chosen.n} images right, and between "
        f"{low:.1%} and {high:.1%} with 95 % confidence. "
        f"(fewclip adapt DATA --out MODEL {chosen.arguments})",
        "Methods are compared in pairs, by log-loss on the images evaluated with both; within "
        "noise the one tried first is taken.",
        *_rivals(best, [row for row in own if row is not best]),
    ]
    for row in rows:
        if row.candidate.outside and row.images.any() and difference(row, best)[0] > 0:
            sentences.append(
                f"Outside fewclip, {row.candidate.name} is ahead of it by more than chance "
                f"({row.accuracy:.1%})."
            )
    return Comparison(
        best=chosen.method,
        advice=" ".join([*sentences, *_unfinished(listed, folds, budget)]),
        rows=tuple(listed),
        folds=folds,
        images=len(fold),
        seconds=seconds,
        budget=budget,
        notes=tuple(notes),
    )


def _rivals(best: Evaluated, rivals: Sequence[Evaluated]) -> list[str]:
    """Sentences about the other methods."""
    alike = [row for row in rivals if difference(row, best)[2] >= 0]
    quicker = [row.candidate.name for row in alike if row.seconds < _QUICKER * best.seconds]
    others = [row.candidate.name for row in alike if row.candidate.name not in quicker]
    sentences = []
    if quicker:
        sentences.append(f"As accurate within chance, and quicker: {_listed(quicker)}.")
    if others:
        sentences.append(f"As accurate within chance: {_listed(others)}.")
    if rivals and not alike:
        sentences.append("It is ahead of every other method tried by more than chance.")
    return sentences


def _unfinished(rows: Sequence[Row], folds: int, budget: float) -> list[str]:
    untried = [row.method for row in rows if not row.n]
    partly = [
        f"{row.method} ({row.folds} of {folds} folds)" for row in rows if row.given_up and row.n
    ]
    sentences = []
    if untried:
        sentences.append(
            f"The budget of {budget:.0f} s ended before {_listed(untried)} could be tried."
        )
    if partly:
        sentences.append(
            f"It cut short {_listed(partly)}; a larger --budget would narrow the intervals."
        )
    return sentences


def _listed(names: Sequence[str]) -> str:
    """The first few; names may have commas."""
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    *others, last = [*names[:_NAMED], *more]
    return f"{'; '.join(others)} and {last}" if others else last
