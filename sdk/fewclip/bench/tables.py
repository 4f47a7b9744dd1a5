"""Runs -> mean and spread over seeds, as Markdown, CSV and JSON. `plot.py` draws the plot."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fewclip.bench.results import Result
from fewclip.contract import plain_json

AVERAGE = "average"  # the row over several data sets, and the column over several targets
HEADINGS = {"h": "H", "answers_per_second": "images/s", "trained_parameters": "trained parameters"}


@dataclasses.dataclass(frozen=True)
class Stat:
    """A mean over seeds; `std` is the sample standard deviation, None for a single value."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat:
        spread = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), spread, len(values))


@dataclasses.dataclass(frozen=True)
class Row:
    """One method on one data set.

    Attributes:
        scores: column -> Stat over seeds. "h" is the harmonic mean of the two means, as in the
            papers' tables, with the spread of the per-seed harmonic means.
        seconds, peak_mb: of training, over all its runs; None for an average.
    """

    dataset: str
    method: str
    scores: dict[str, Stat]
    seconds: Stat | None
    peak_mb: Stat | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """The table of a sweep.

    Attributes:
        protocol: whose table it is.
        rows: data set by data set, methods in the order given.
        results: the individual runs behind it.
        notes: what a reader should know about the data.
    """

    protocol: str
    rows: tuple[Row, ...]
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))

    def row(self, method: str, dataset: str | None = None) -> Row:
        """The row of a method, on the first data set unless one is named."""
        return next(r for r in self.rows if r.method == method and dataset in (None, r.dataset))

    def to_markdown(self) -> str:
        """One table per data set."""
        parts = []
        for name in dict.fromkeys(row.dataset for row in self.rows):
            parts.append(f"### {self.protocol}: {name}\n")
            parts.append(self._markdown([row for row in self.rows if row.dataset == name]))
        return "\n".join([*parts, *(f"Note: {note}." for note in self.notes)]).rstrip() + "\n"

    def _markdown(self, rows: Sequence[Row]) -> str:
        heads = ["method", *(HEADINGS.get(c, c) for c in self.columns)]
        heads += ["seeds", "training, s", "peak memory, MB"]
        lines = [heads, ["---"] * len(heads)]
        for row in rows:
            cells = [_cell(name, row.scores.get(name)) for name in self.columns]
            seeds = max(stat.n for stat in row.scores.values())
            cost = ["" if s is None else f"{s.mean:.0f}" for s in (row.seconds, row.peak_mb)]
            lines.append([row.method, *cells, str(seeds), *cost])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def to_csv(self) -> str:
        """One line per row, means and standard deviations as plain numbers."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        spread = [f"{name} {kind}" for name in self.columns for kind in ("mean", "std")]
        writer.writerow(["dataset", "method", "seeds", *spread, "seconds", "peak_mb"])
        for row in self.rows:
            stats = [row.scores.get(name) for name in self.columns]
            cells = [x for s in stats for x in ((s.mean, s.std) if s else (None, None))]
            cost = [None if s is None else s.mean for s in (row.seconds, row.peak_mb)]
            seeds = max(stat.n for stat in row.scores.values())
            writer.writerow([row.dataset, row.method, seeds, *cells, *cost])
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only: rows, and every run behind them."""
        return {
            "protocol": self.protocol,
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "runs": [result.to_dict() for result in self.results],
            "notes": list(self.notes),
        }

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write PROTOCOL.md, .csv, .json and .png into `folder`; returns their paths.

        Raises:
            MissingExtraError: matplotlib is not installed; nothing is written then.
        """
        from fewclip.bench.plot import draw

        picture = draw(self)
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        text = json.dumps(plain_json(self.to_dict()), indent=1, ensure_ascii=False) + "\n"
        contents = {".md": self.to_markdown(), ".csv": self.to_csv(), ".json": text}
        paths = [place / f"{self.protocol}{suffix}" for suffix in (*contents, ".png")]
        for path, content in zip(paths, contents.values(), strict=False):
            path.write_text(content, encoding="utf-8")
        paths[-1].write_bytes(picture)
        return paths


def summarise(results: Sequence[Result], notes: tuple[str, ...] = ()) -> Summary:
    """Group runs by data set and method, in their order."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.run["dataset"], result.run["method"]), []).append(result)
    shots = list(dict.fromkeys(r.run["shots"] for r in results if r.run["shots"] != 0))
    rows = [
        Row(
            dataset,
            method,
            _scores(group, shots),
            Stat.of([r.cost["seconds"] for r in group]),
            Stat.of([r.cost["peak_mb"] for r in group]),
        )
        for (dataset, method), group in groups.items()
    ]
    rows += _averages(rows)
    protocol = results[0].run["protocol"] if results else "nothing"
    return Summary(protocol=protocol, rows=tuple(rows), results=tuple(results), notes=notes)


def _scores(group: Sequence[Result], shots: Sequence[int]) -> dict[str, Stat]:
    values: dict[str, list[float]] = {}
    for result in group:
        for name, value in result.scores.items():
            columns = [name]
            if result.run["protocol"] == "few-shot":  # zero-shot is the same at any number of shots
                counts = [result.run["shots"]] if result.run["shots"] else shots
                columns = [f"{count} shots" for count in counts]
            for column in columns:
                values.setdefault(column, []).append(value)
    return _with_harmonic({name: Stat.of(each) for name, each in values.items()})


def _with_harmonic(scores: dict[str, Stat]) -> dict[str, Stat]:
    if "h" in scores:
        base, new = scores["base"].mean, scores["new"].mean
        mean = 2 * base * new / (base + new) if base + new else 0.0
        scores["h"] = dataclasses.replace(scores["h"], mean=mean)
    return scores


def _averages(rows: Sequence[Row]) -> list[Row]:
    """Each method's mean over the data sets, if there are several and it ran on all of them."""
    sets = {row.dataset for row in rows}
    if len(sets) < 2:
        return []
    averages = []
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        if len(own) == len(sets):
            scores = {
                name: Stat(
                    statistics.fmean(row.scores[name].mean for row in own),
                    _pooled(row.scores[name].std for row in own),
                    min(row.scores[name].n for row in own),
                )
                for name in own[0].scores
                if all(name in row.scores for row in own)
            }
            averages.append(Row(AVERAGE, method, _with_harmonic(scores), None, None))
    return averages


def _pooled(spreads: Iterable[float | None]) -> float | None:
    """Standard deviation of a mean of independent data sets."""
    known = [s for s in spreads if s is not None]
    return math.sqrt(sum(s * s for s in known)) / len(known) if known else None


def _cell(name: str, stat: Stat | None) -> str:
    if stat is None:
        return ""
    if name in HEADINGS and name != "h":
        return f"{stat.mean:,.0f}"
    spread = "" if stat.std is None else f" ± {100 * stat.std:.1f}"
    return f"{100 * stat.mean:.1f}{spread}"
