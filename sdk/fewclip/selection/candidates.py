"""What `method="auto"` tries, simplest first. It evaluates nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

GENTLE: Mapping[str, Any] = {"crop_area": 0.6, "flip": False}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to adapt.

    Attributes:
        name: for tables; the method and what is special about this way.
        method, options: as `adapt` takes them; what is not named is the backbone's own default.
        trains: minutes instead of seconds, so that it is tried on a fold or two.
    """

    name: str
    method: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trains: bool = False


CHEAP = (
    Candidate("zero-shot", "zero-shot"),
    Candidate("gda", "gda"),
    Candidate("linear-probe", "linear-probe"),
)
# Gentle crops and no mirroring suit small parts, letters and hands; the published ones suit photos
# of things. Skip Tuning and DePT are always tried, each with both.
TRAINED = (
    Candidate("skip-tuning, gentle crops", "skip-tuning", GENTLE, trains=True),
    Candidate("kgcoop+dept, gentle crops", "kgcoop+dept", GENTLE, trains=True),
    Candidate("skip-tuning", "skip-tuning", trains=True),
    Candidate("kgcoop+dept", "kgcoop+dept", trains=True),
)
