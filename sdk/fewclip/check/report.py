"""Everything found in a data set, for people, for programs, and as fixes for `adapt`."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fewclip.check.issue import KINDS, Issue
from fewclip.check.page import render
from fewclip.images import Image

_FIXES = ("image", "action", "new_label", "label", "reason")  # columns of fixes.csv


@dataclasses.dataclass(frozen=True)
class DataReport:
    """All findings of a data set.

    Attributes:
        name: of the data set.
        classes: images of each class.
        issues: the most pressing first.
        images: source -> image, for all that the issues name, for thumbnails.
    """

    name: str
    classes: Mapping[str, int]
    issues: tuple[Issue, ...]
    images: Mapping[str, Image] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> how many, the most pressing first."""
        found = Counter(issue.kind for issue in self.issues)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "data": self.name,
            "images": sum(self.classes.values()),
            "classes": dict(self.classes),
            "counts": self.counts,
            "issues": [issue.to_dict() for issue in self.issues],
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write report.json, index.html (with thumbnails), fixes.csv; returns the page's path."""
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=2)
        (out / "report.json").write_text(text + "\n", "utf-8")
        (out / "index.html").write_text(render(self), "utf-8")
        _write_fixes(self.issues, out / "fixes.csv")
        return out / "index.html"

    def summary(self) -> str:
        """One line."""
        if not self.issues:
            return "nothing found"
        return ", ".join(f"{KINDS[kind]}: {n}" for kind, n in self.counts.items())

    def __str__(self) -> str:
        total = sum(self.classes.values())
        lines = [f"{self.name}: {total} images of {len(self.classes)} classes; {self.summary()}"]
        for issue in self.issues:
            where = f" [{issue.label}]" if issue.label else ""
            lines.append(f"  {issue.kind:<10} {issue.source}{where}: {issue.reason}")
        return "\n".join(lines)


def _write_fixes(issues: Iterable[Issue], path: Path) -> None:
    """The issues that have an action, the most pressing first, one row per image."""
    done = set()
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(_FIXES)
        for issue in issues:
            if issue.action and issue.source not in done:
                done.add(issue.source)
                row = (issue.source, issue.action, issue.new_label, issue.label, issue.reason)
                rows.writerow(row)
