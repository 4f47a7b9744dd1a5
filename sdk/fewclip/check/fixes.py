"""The fixes that a report suggests, as the CSV that `fewclip.data.fixes` reads. Writing alone."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from fewclip.check.report import Issue

COLUMNS = ("image", "action", "new_label", "label", "reason")


def write_fixes(issues: Iterable[Issue], path: Path) -> None:
    """The issues that have an action, the most pressing first, one row per image."""
    done = set()
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for issue in issues:
            if issue.action and issue.source not in done:
                done.add(issue.source)
                row = (issue.source, issue.action, issue.new_label, issue.label, issue.reason)
                rows.writerow(row)
