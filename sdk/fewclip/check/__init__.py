"""A data set's faults: wrong labels, near-duplicates, odd images, and what to do about each.

`photos` measures single images, `duplicates` finds the same picture twice, `labels` checks labels
by models of the other images; `report` holds all findings, `page` renders them as HTML.
`fewclip.check(data)` and this package share a name, so the package is callable.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from fewclip.check.issue import Issue
from fewclip.check.report import DataReport
from fewclip.check.run import check, glance

__all__ = ["DataReport", "Issue", "check", "glance"]


class _CallablePackage(types.ModuleType):
    def __call__(self, data: Any, **options: Any) -> DataReport:
        return check(data, **options)


sys.modules[__name__].__class__ = _CallablePackage
