"""What `method="auto"` tries, simplest first. It evaluates nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fewclip.preprocess import AUGMENTATIONS

GENTLE = AUGMENTATIONS["gentle"]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to adapt.

    Attributes:
        name: for tables; the method and what is special about this way.
        method, options: as `adapt` takes them; what is not named is the backbone's own default.
        trains: minutes instead of seconds, so that it is tried on a fold or two.
        shares: name of the candidate whose training gives this one's weights too.
    """

    name: str
    method: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trains: bool = False
    shares: str = ""

    @property
    def arguments(self) -> str:
        """What `fewclip adapt` takes to adapt in this way."""
        gentle = GENTLE.items() <= self.options.items()
        others = {k: v for k, v in self.options.items() if not (gentle and k in GENTLE)}
        words = [f"--method {self.method}", *(["--augment gentle"] if gentle else [])]
        return " ".join([*words, *(f"--set {key}={value}" for key, value in others.items())])


CHEAP = (
    Candidate("zero-shot", "zero-shot"),
    Candidate("gda", "gda"),
    Candidate("linear-probe", "linear-probe"),
)
HALF = 0.5  # WiSE-FT's interpolation that its authors recommend where nothing is known
# Of the following, a backbone that gives features only is offered none.
# Gentle crops and no mirroring suit small parts, letters and hands; the published ones suit photos
# of things. Skip Tuning and DePT are always tried, each with both.
TRAINED = (
    Candidate("skip-tuning, gentle crops", "skip-tuning", GENTLE, trains=True),
    Candidate("kgcoop+dept, gentle crops", "kgcoop+dept", GENTLE, trains=True),
    Candidate("skip-tuning", "skip-tuning", trains=True),
    Candidate("kgcoop+dept", "kgcoop+dept", trains=True),
    Candidate(
        "skip-tuning, gentle crops, half of the change",
        "skip-tuning",
        {**GENTLE, "interpolation": HALF},
        trains=True,
        shares="skip-tuning, gentle crops",
    ),
    Candidate(
        "skip-tuning, half of the change",
        "skip-tuning",
        {"interpolation": HALF},
        trains=True,
        shares="skip-tuning",
    ),
)


def named(name: str) -> Candidate:
    """A candidate of that name, or the method of that name with the backbone's own options.

    Raises:
        OptionError: neither.
    """
    from fewclip.methods import resolve  # which imports torch for its options only

    known = {each.name: each for each in (*CHEAP, *TRAINED)}
    if name in known:
        return known[name]
    method = resolve(name)
    return known.get(method) or Candidate(method, method, trains=True)
