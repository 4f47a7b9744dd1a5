"""What was found in a data set: issues, and a report that people, programs and `adapt` can read."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewclip.images import Image

# Kind -> what it is called, most pressing first.
KINDS = {
    "leak": "the same picture to learn from and to measure on",
    "conflict": "the same picture under two classes",
    "label": "likely a wrong label",
    "unreadable": "unreadable files",
    "duplicate": "near-duplicates within a class",
    "names": "class names that mean the same",
    "overlap": "classes that are hard to tell apart",
    "outlier": "unlike its class",
    "empty": "nothing to see",
    "dark": "too dark",
    "bright": "overexposed",
    "blurred": "blurred",
    "tiny": "tiny",
    "shape": "oddly shaped",
    "balance": "uneven classes",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Issue:
    """One finding.

    Attributes:
        kind: a key of `KINDS`.
        source: the image, as the data set names it; a class for findings about classes.
        label, split: what the data set says of it.
        score: how sure it is, 0..1.
        reason: why, for people.
        advice: what to do, for people.
        neighbours: sources of the images that it was compared with.
        action: "remove", "relabel", or "" where only a person can tell.
        new_label: what it more likely shows, for "relabel".
        image: to draw a thumbnail from; None for findings about classes.
    """

    kind: str
    source: str
    score: float
    reason: str
    advice: str
    label: str = ""
    split: str = ""
    neighbours: tuple[str, ...] = ()
    action: str = ""
    new_label: str = ""
    image: Image | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the image."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "image"]
        plain = {name: getattr(self, name) for name in names}
        return plain | {"neighbours": list(self.neighbours)}


@dataclasses.dataclass(frozen=True)
class DataReport:
    """All findings of a data set.

    Attributes:
        name: of the data set.
        classes: images of each class.
        issues: the most pressing first.
        images: source -> image, of all that the issues name, for thumbnails.
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
        """Write report.json, index.html (with thumbnails inside) and fixes.csv; the page's path."""
        from fewclip.check.fixes import write_fixes
        from fewclip.check.page import render

        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=2)
        (out / "report.json").write_text(text + "\n", "utf-8")
        (out / "index.html").write_text(render(self), "utf-8")
        write_fixes(self.issues, out / "fixes.csv")
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
