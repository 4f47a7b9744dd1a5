"""Which method is best for YOUR images: cross-validation within a budget, and a recommendation.

Every image is evaluated with models that have not seen it. `cross_validation.py` evaluates,
`kept_runs.py` keeps what is finished, and `recommendation.py` puts the outcome into words.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from fewclip.backbone import why_features_only
from fewclip.bench.published import PLAIN
from fewclip.bench.results import Store
from fewclip.data import Data, Pool, Split, read
from fewclip.errors import DataError, OptionError
from fewclip.methods import registry
from fewclip.selection.baselines import require_sklearn
from fewclip.selection.candidates import BASELINE, METHODS, Candidate, named
from fewclip.selection.cross_validation import CrossValidation, options_of
from fewclip.selection.evaluated import OUT_OF_TIME, Evaluated, Run, training_groups
from fewclip.selection.kept_runs import KeptRuns
from fewclip.selection.recommendation import Comparison, advise
from fewclip.system.blas import one_blas_thread
from fewclip.system.reporting import ReportProgress, report_nothing
from fewclip.training import AdaptConfig, make_plan
from fewclip.training.cross_fit import FOLDS

_Call = tuple[list[Candidate], int, float]  # arguments of `CrossValidation.evaluate_trained`


@one_blas_thread
def compare(
    data: Data,
    *,
    methods: Sequence[str] = METHODS,
    budget: float = 600.0,
    folds: int = FOLDS,
    shots: int | Literal["all"] = 16,
    backbone: str = "micro",
    classes: Sequence[str] | Mapping[str, str] | None = None,
    template: str = PLAIN,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    report_progress: ReportProgress = report_nothing,
    out: str | os.PathLike[str] | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    ray_cpus: float = 1.0,
) -> Comparison:
    """Compare methods on your own images by cross-validation.

    The images, the folds and the rule of choice are those of `adapt(method="auto", val=0)` with the
    same `shots` and `seed`. Heads on frozen features come first, on all folds at once. Of the
    rest, within the budget, every method is tried on the first fold before any goes on to the
    second. A test/ folder is left alone.

    Args:
        data, backbone, classes, template, seed, device, precision: as in `adapt`.
        methods: in the order in which they are tried; names of methods, or of what "auto" tries.
        budget: seconds for everything; zero-shot, heads on frozen features and scikit-learn's SVM
            always finish; anything else that does not fit is left out and reported.
        folds: parts that the images are divided into; at most the largest class's images.
        shots: images drawn of each class before they are divided into folds, or "all".
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
    if engine not in ("local", "ray"):
        raise OptionError(f"unknown engine {engine!r}; use local or ray")
    config = AdaptConfig(
        backbone=backbone,
        shots=shots,
        val=0,
        template=template,
        seed=seed,
        device=device,
        precision=precision,
    )
    require_sklearn()
    candidates = _candidates(methods, backbone, options or {})
    pool = read(data, classes=classes)
    cv = CrossValidation(make_plan(pool, config), folds)
    _check_images(cv, shots)
    for each in candidates:  # wrong options are refused before the long work
        options_of(cv.plan, each)
    schedule = _Schedule(
        cv=cv,
        heads=cv.empty_rows([each for each in candidates if not each.trains] + [BASELINE]),
        trained=cv.empty_rows([each for each in candidates if each.trains]),
        ends=begin + budget,
        kept=KeptRuns(None if out is None else Store(out), cv),
        ray={"cpus": ray_cpus, "address": ray_address} if engine == "ray" else None,
        report_progress=report_progress,
    )
    schedule.run()
    return advise(
        [*schedule.heads, *schedule.trained],
        cv.fold,
        seconds=time.monotonic() - begin,
        budget=budget,
        notes=_notes(pool, cv.plan.split),
    )


def _candidates(
    methods: Sequence[str], backbone: str, options: Mapping[str, Mapping[str, Any]]
) -> list[Candidate]:
    """What is named, with its options; of the default ones, what the backbone allows.

    Raises:
        OptionError: nothing is named, or what needs blocks that the backbone does not have.
    """
    if not methods:
        raise OptionError("no methods were named; name at least one, see `fewclip methods`")
    reason = why_features_only(backbone)
    found = list({each.name: each for each in map(named, methods)}.values())
    if reason and tuple(methods) == METHODS:
        found = [each for each in found if not registry.needs_blocks(each.method)]
    for each in found:
        registry.check_backbone(each.method, backbone, reason)
    return _with_options(found, options)


def _with_options(
    candidates: Sequence[Candidate], options: Mapping[str, Mapping[str, Any]]
) -> list[Candidate]:
    """The candidates with these options; where they no longer fit, no training is shared."""
    given = options.get("", {})
    changed = {
        each.name: dataclasses.replace(
            each, options={**each.options, **given, **options.get(each.method, {})}
        )
        for each in candidates
    }
    return [
        each
        if each.shares in changed and each.comes_from(changed[each.shares])
        else dataclasses.replace(each, shares="")
        for each in changed.values()
    ]


def _check_images(cv: CrossValidation, shots: int | Literal["all"]) -> None:
    """
    Raises:
        DataError: a class has only one image.
    """
    counts = np.bincount(cv.labels)
    if counts.min() < 2:
        short = cv.plan.split.classes[int(counts.argmin())]
        fix = "take more than one per class as `shots`" if shots == 1 else "add others"
        raise DataError(
            f"class {short!r} has one image, and cross-validation needs two of each class: one to "
            f"train on, one to evaluate; {fix}"
        )


@dataclasses.dataclass
class _Schedule:
    """Which run comes next, as long as the budget lasts, and the result of each.

    Attributes:
        heads, trained: what is evaluated on all folds at once, and on one at a time.
        ends: when the budget does.
        ray: None for one run after another; else how `completed` gives them to Ray.
    """

    cv: CrossValidation
    heads: list[Evaluated]
    trained: list[Evaluated]
    ends: float
    kept: KeptRuns
    ray: Mapping[str, Any] | None
    report_progress: ReportProgress

    def run(self) -> None:
        """Evaluate heads, then what trains, each in the order given."""
        self._evaluate_heads()
        by_name = {row.candidate.name: row for row in self.trained}
        for (candidates, fold, _), runs in self._completed():
            rows = [by_name[each.name] for each in candidates]
            if runs is None:
                self._give_up(rows)
                self.report_progress(
                    f"fold {fold + 1}: {candidates[0].name} did not finish in time"
                )
                continue
            for row, run in zip(rows, runs, strict=True):
                self.kept.add(row.candidate, fold, run)
                self._record(row, fold, run)

    def _completed(self) -> Iterable[tuple[_Call, list[Run] | None]]:
        evaluate = self.cv.evaluate_trained
        if self.ray is None:
            return ((call, evaluate(*call)) for call in self._todo())
        from fewclip.bench.ray_runs import completed

        gpus = int(self.cv.device == "cuda")
        return completed(evaluate, self._todo(), gpus=lambda *_: gpus, throttled=True, **self.ray)

    def _evaluate_heads(self) -> None:
        rows = [row for row in self.heads if not self._recorded([row], None)]
        found = self.cv.evaluate_heads([row.candidate for row in rows])
        for row, (run, _) in zip(rows, found, strict=True):
            self.kept.add(row.candidate, None, run)
            self._record(row, None, run)

    def _todo(self) -> Iterator[_Call]:
        """Each training that is not kept from before, while the budget lasts."""
        # Without heads, the first method gets its first fold, so that there is an answer at all.
        unlimited = len(self.heads) == 1
        for fold in range(self.cv.folds):
            for rows in training_groups(self.trained):
                if self._recorded(rows, fold):
                    continue
                left = math.inf if unlimited else self.ends - time.monotonic()
                unlimited = False
                # Another fold takes as long as the last.
                if left < max((cost.seconds for cost in rows[0].costs), default=0.0):
                    self._give_up(rows)
                elif rows[0].note != OUT_OF_TIME:
                    yield [row.candidate for row in rows], fold, left

    def _recorded(self, rows: Sequence[Evaluated], fold: int | None) -> bool:
        """Whether the runs of all rows were kept from before; they are recorded then."""
        runs = [run for row in rows if (run := self.kept.find(row.candidate, fold))]
        if len(runs) < len(rows):
            return False
        for row, run in zip(rows, runs, strict=True):
            self._record(row, fold, run, " (kept from before)")
        return True

    def _give_up(self, rows: Sequence[Evaluated]) -> None:
        for row in rows:
            row.note = OUT_OF_TIME

    def _record(self, row: Evaluated, fold: int | None, run: Run, more: str = "") -> None:
        row.add(run)
        where = "all folds" if fold is None else f"fold {fold + 1}"
        accuracy, seconds = float(run.right.mean()), run.cost.seconds
        self.report_progress(f"{where}: {row.candidate.name} {accuracy:.1%}, {seconds:.0f} s{more}")


def _notes(pool: Pool, split: Split) -> list[str]:
    notes = list(pool.notes)
    if pool.skipped:
        notes.append(f"not used: {len(pool.skipped)} of the files")
    if split.unused:
        notes.append(
            f"{split.unused} images beyond {split.shots} of a class were not used; "
            "shots 'all' uses them"
        )
    if pool.test:
        notes.append(
            f"the {len(pool.test)} images of test/ were not used, so that you can test on them at "
            "the end"
        )
    return notes
