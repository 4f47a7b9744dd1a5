"""What `method="auto"` and `compare` try, in order of preference. It evaluates nothing."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from fewclip.bench.published import settings
from fewclip.preprocess import AUGMENTATIONS
from fewclip.selection.baselines import SVM

HEAD_OPTIONS = ("views", "dept_weight")  # those of a head on tuned features, not of its towers
GENTLE, PUBLISHED = AUGMENTATIONS["gentle"], AUGMENTATIONS["published"]
FEW_SHOT_EPOCHS: int = settings("few-shot", "skip-tuning")["epochs"]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to adapt.

    Attributes:
        name: for tables; the method and what is special about this candidate.
        method, options: as `adapt` takes them; options not given are the backbone's defaults.
        trains: whether it takes minutes rather than seconds, and so is tried on few folds.
        shares: name of the candidate whose training also yields this one's weights.
        outside: whether it is a baseline of scikit-learn's that `adapt` does not give.
    """

    name: str
    method: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trains: bool = False
    shares: str = ""
    outside: bool = False

    @property
    def tower(self) -> str:
        """The method that tunes the towers, if this one adds a head afterwards; else its own."""
        method, _, head = self.method.partition("+")
        return method if head == "gda" else self.method

    def comes_from(self, other: Candidate) -> bool:
        """Whether the other's training yields this one's weights with these options too."""
        later = ("interpolation",) if self.method == other.method else HEAD_OPTIONS
        own = {key: value for key, value in self.options.items() if key not in later}
        return self.shares == other.name and own == other.options

    @property
    def arguments(self) -> str:
        """The arguments of `fewclip adapt` that give this candidate; "" for a baseline."""
        if self.outside:
            return ""
        own = dict(self.options)
        words = [f"--method {self.method}"]
        for name, augmentation in AUGMENTATIONS.items():
            if augmentation.items() <= own.items():
                words.append(f"--augment {name}")
                own = {key: value for key, value in own.items() if key not in augmentation}
        return " ".join([*words, *(f"--set {_setting(*pair)}" for pair in own.items())])


def _setting(key: str, value: Any) -> str:
    """As `--set` reads it, quoted for a shell."""
    text = value if isinstance(value, str) else json.dumps(value)
    return shlex.quote(f"{key}={text}")


ZERO_SHOT = Candidate("zero-shot", "zero-shot")
# `gda` includes the text as far as that proved useful, so zero-shot has to be ahead to win.
CHEAP = (
    Candidate("gda", "gda"),
    ZERO_SHOT,
    Candidate("linear-probe", "linear-probe"),
)
HALF = 0.5  # WiSE-FT's interpolation that its authors recommend where nothing is known
_SKIP, _DEPT = "skip-tuning", "kgcoop+dept"
# Gentle crops and no mirroring suit small parts, letters and hands, which take longer to learn than
# things that CLIP knows: 40 epochs, as in Skip Tuning's few-shot setting. The published crops and
# 20 epochs, as in base-to-new, suit photos of things.
_LONG = {**GENTLE, "epochs": FEW_SHOT_EPOCHS}
_LONG_SKIP = f"{_SKIP}, gentle crops, {FEW_SHOT_EPOCHS} epochs"
# A backbone that gives features only is offered none of the following. Skip Tuning and DePT are
# always tried with gentle crops, and with the published ones where their method could still win.
# The head on tuned features includes the tuned text as far as that proved useful, so Skip Tuning
# alone has to be ahead of it to win.
TRAINED = (
    Candidate(
        f"{_SKIP}+gda, gentle crops, {FEW_SHOT_EPOCHS} epochs",
        f"{_SKIP}+gda",
        _LONG,
        trains=True,
        shares=_LONG_SKIP,
    ),
    Candidate(_LONG_SKIP, _SKIP, _LONG, trains=True),
    Candidate(f"{_DEPT}, gentle crops", _DEPT, GENTLE, trains=True),
    Candidate(f"{_SKIP}, published crops", _SKIP, PUBLISHED, trains=True),
    Candidate(f"{_DEPT}, published crops", _DEPT, PUBLISHED, trains=True),
    Candidate(
        f"{_LONG_SKIP}, half of the change",
        _SKIP,
        {**_LONG, "interpolation": HALF},
        trains=True,
        shares=_LONG_SKIP,
    ),
    Candidate(
        f"{_SKIP}, published crops, half of the change",
        _SKIP,
        {**PUBLISHED, "interpolation": HALF},
        trains=True,
        shares=f"{_SKIP}, published crops",
    ),
)
# `compare` tries what "auto" does, and then these.
METHODS = (
    *(each.name for each in (*CHEAP, *TRAINED)),
    "clip-adapter+dept",
    "maple+dept",
    "promptsrc+dept",
    "fine-tune",
)
BASELINE = Candidate(SVM, SVM, outside=True)


def split_names(given: Sequence[str]) -> list[str]:
    """The names in words of a command line, separated by spaces or commas.

    Names of candidates have both in themselves: the longest known name is taken.
    """
    known = "|".join(map(re.escape, sorted(METHODS, key=len, reverse=True)))
    return re.findall(rf"(?:{known})(?![^\s,])|[^\s,]+", " ".join(given))


def named(name: str) -> Candidate:
    """A candidate of that name, or the method of that name with the backbone's own options.

    Raises:
        OptionError: neither.
    """
    from fewclip.methods import resolve  # imports torch only to check options

    known = {each.name: each for each in (*CHEAP, *TRAINED)}
    if name in known:
        return known[name]
    method = resolve(name)
    return known.get(method) or Candidate(method, method, trains=True)
