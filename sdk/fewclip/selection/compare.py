"""Which method is best for YOUR images: cross-validation within a budget, and a recommendation.

Every image is evaluated with models that have not seen it. `fold_runs.py` is one run, and
`recommendation.py` puts the outcome into words; `baselines.py` holds scikit-learn's classifiers on
CLIP's features.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fewclip.bench.published import PLAIN
from fewclip.bench.results import Result, Store
from fewclip.data import Data, Pool, read
from fewclip.errors import OptionError
from fewclip.heads import one_blas_thread
from fewclip.selection.baselines import REFERENCES, require_sklearn
from fewclip.selection.candidates import CHEAP, TRAINED, named
from fewclip.selection.fold_runs import FoldRuns, Settings
from fewclip.selection.recommendation import Comparison, Row, advise

# What "auto" tries, heads first, so that a short budget still compares something; then others.
METHODS = (
    *(each.name for each in (*CHEAP, *TRAINED) if not each.shares),
    "clip-adapter+dept",
    "maple+dept",
    "promptsrc+dept",
    "fine-tune",
)
ReportProgress = Callable[[str], None]


@dataclasses.dataclass
class _Tally:
    """One method's results so far: right[i] is 1 or 0, or -1 if image i was not evaluated."""

    right: npt.NDArray[np.int8]
    seconds: list[float] = dataclasses.field(default_factory=list)
    peak_mb: float = 0.0
    given_up: bool = False

    def add(self, right: npt.NDArray[np.int8], held: npt.NDArray[np.bool_], result: Result) -> None:
        self.right[held] = right
        self.seconds.append(result.cost["seconds"])
        self.peak_mb = max(self.peak_mb, result.cost["peak_mb"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """Where the runs are executed.

    Attributes:
        name: "local", one after another; or "ray", several at once.
        ray_address: of a running cluster; None starts Ray on this machine.
        ray_cpus: CPUs that each run reserves, and its number of threads.
    """

    name: str = "local"
    ray_address: str | None = None
    ray_cpus: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in ("local", "ray"):
            raise OptionError(f"unknown engine {self.name!r}; use local or ray")


@one_blas_thread
def compare(
    data: Data,
    *,
    methods: Sequence[str] = METHODS,
    budget: float = 600.0,
    folds: int = 5,
    shots: int | Literal["all"] = 16,
    backbone: str = "micro",
    classes: Sequence[str] | Mapping[str, str] | None = None,
    template: str = PLAIN,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    report_progress: ReportProgress | None = None,
    out: str | os.PathLike[str] | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    ray_cpus: float = 1.0,
) -> Comparison:
    """Compare methods on your own images by cross-validation.

    Folds are the outer loop: within the budget, every method is tried on the first fold before any
    goes on to the second. A test/ folder is left alone.

    Args:
        data, backbone, classes, template, seed, device, precision: as in `adapt`.
        methods: in the order in which they are tried; names of methods, or of what "auto" tries.
        budget: seconds for everything; zero-shot, heads on frozen features and scikit-learn's SVM
            always finish; anything else that does not fit is left out and reported.
        folds: parts that the images are divided into; at most the smallest class's images.
        shots: most training images per class.
        options: {method: {option: value}}; those under "" are for every method.
        report_progress: called with one line per step.
        out: folder that keeps every finished run; runs found there are not repeated.
        engine: "local", one run after another; or "ray", several at once.
        ray_address: of a running cluster; None starts Ray on this machine.
        ray_cpus: CPUs that each run reserves, and its number of threads.

    Raises:
        DataError, OptionError, BackboneError: the input is at fault.
        MissingExtraError: scikit-learn, or Ray for engine "ray", is not installed.
    """
    begin = time.monotonic()
    if not budget > 0:
        raise OptionError(f"budget must be seconds above 0, got {budget!r}")
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise OptionError(f"folds must be a whole number of at least 2, got {folds!r}")
    where = Engine(name=engine, ray_address=ray_address, ray_cpus=ray_cpus)
    require_sklearn()
    methods = _possible(methods, backbone)
    pool = read(data, classes=classes)
    settings = Settings(
        backbone=backbone,
        template=template,
        shots=shots,
        seed=seed,
        device=device,
        precision=precision,
        options=options or {},
    )
    runs = FoldRuns(pool, methods, folds, settings)
    store = None if out is None else Store(out)
    tallies = _Schedule(runs, begin + budget, store, report_progress or (lambda line: None)).run(
        where
    )
    return advise(
        [_row(name, tally, runs) for name, tally in tallies.items()],
        folds=runs.folds,
        images=runs.images,
        seconds=time.monotonic() - begin,
        budget=budget,
        notes=_notes(pool),
    )


def _possible(methods: Sequence[str], backbone: str) -> Sequence[str]:
    """The methods named; of the default ones, those that the backbone allows.

    Raises:
        OptionError: a method that was named needs blocks that the backbone does not have.
    """
    from fewclip.backbone import why_features_only
    from fewclip.methods import registry

    reason = why_features_only(backbone)
    if reason and tuple(methods) == METHODS:
        return [name for name in METHODS if not registry.needs_blocks(named(name).method)]
    for name in methods:
        registry.check_backbone(named(name).method, backbone, reason)
    return methods


class _Schedule:
    """Which run comes next, as long as the budget lasts, and the result of each."""

    def __init__(
        self, runs: FoldRuns, ends: float, store: Store | None, report: ReportProgress
    ) -> None:
        self._runs, self._ends, self._store, self._report = runs, ends, store, report
        self._tallies = {name: _Tally(np.full(runs.images, -1, np.int8)) for name in runs.names}

    def run(self, engine: Engine) -> dict[str, _Tally]:
        """Every method's tally, in the order in which they were tried."""
        if engine.name == "local":
            for name, fold, seconds in self._todo():
                self._finished(name, fold, self._runs.execute(name, fold, seconds))
            return self._tallies
        from fewclip.bench.ray_runs import completed

        calls = completed(
            self._runs.execute,
            self._todo(),
            cpus=engine.ray_cpus,
            gpus=lambda *_: self._runs.gpus,
            address=engine.ray_address,
            throttled=True,
        )
        for (name, fold, _), result in calls:
            self._finished(name, fold, result)
        return self._tallies

    def _todo(self) -> Iterator[tuple[str, int, float]]:
        """(name, fold, seconds that it may take) of each run that is not kept from before."""
        for fold in range(self._runs.folds):
            for name, tally in self._tallies.items():
                if (kept := self._kept(name, fold)) is not None:
                    self._finished(name, fold, kept, " (kept from before)")
                    continue
                # The first always gets its first fold, so that there is an answer at all; what
                # takes seconds always finishes.
                if not self._runs.trains(name) or (fold == 0 and name == self._runs.names[0]):
                    yield name, fold, math.inf
                    continue
                left = self._ends - time.monotonic()
                # Another fold takes as long as the last.
                tally.given_up |= left < max(tally.seconds, default=0.0)
                if not tally.given_up:
                    yield name, fold, left

    def _kept(self, name: str, fold: int) -> Result | None:
        return self._store.find(self._runs.describe(name, fold)) if self._store else None

    def _finished(self, name: str, fold: int, result: Result | None, more: str = "") -> None:
        tally = self._tallies[name]
        if result is None:
            tally.given_up = True
            self._report(f"fold {fold + 1}: {name} did not finish within the budget")
            return
        if self._store is not None and not more:
            self._store.add(result)
        tally.add(self._runs.right(result), self._runs.held(fold), result)
        accuracy, seconds = result.scores["accuracy"], result.cost["seconds"]
        self._report(f"fold {fold + 1}: {name} {accuracy:.1%}, {seconds:.0f} s{more}")


def _row(name: str, tally: _Tally, runs: FoldRuns) -> Row:
    evaluated = tally.right >= 0
    return Row(
        method=name,
        right=tally.right,
        n=int(evaluated.sum()),
        folds=len(tally.seconds),
        seconds=float(np.mean(tally.seconds)) if tally.seconds else 0.0,
        peak_mb=tally.peak_mb,
        outside=name in REFERENCES,
        arguments="" if name in REFERENCES else runs.candidates[name].arguments,
        given_up=tally.given_up,
    )


def _notes(pool: Pool) -> list[str]:
    notes = list(pool.notes)
    if pool.skipped:
        notes.append(f"not used: {len(pool.skipped)} of the files")
    if pool.test:
        notes.append(
            f"the {len(pool.test)} images of test/ were not used, so that you can test on them at "
            "the end"
        )
    return notes
