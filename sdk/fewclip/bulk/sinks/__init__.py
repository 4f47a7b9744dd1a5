"""Where rows go, in parts.

`files` writes FILE.csv, FILE.jsonl or a local folder, `objects` a folder of Parquet parts behind a
URL. A part is written whole or not at all, so a run can be killed at any moment.
"""

from __future__ import annotations

import os
from typing import Any

from fewclip.bulk.records import is_url
from fewclip.bulk.sinks.files import FileOutput
from fewclip.bulk.sinks.objects import ObjectOutput
from fewclip.bulk.sinks.output import PART_ROWS, PART_SECONDS, Output

__all__ = ["PART_ROWS", "PART_SECONDS", "Output", "open_output"]


def open_output(out: str | os.PathLike[str], *arguments: Any, **options: Any) -> Output:
    """The `Output` for what `out` names; the other arguments are those of `Output`."""
    kind = ObjectOutput if is_url(out) else FileOutput
    return kind(out, *arguments, **options)
