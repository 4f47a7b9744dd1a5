"""`method="auto"`: the method that serves these training images best, within a budget.

Heads on frozen features are cheap and are evaluated on every fold. Methods that train are evaluated
on one fold first, with gentle crops and then with the published ones unless they are far behind,
and on more folds only while they could still win. The choice is by out-of-fold log-loss, each
candidate at its own best temperature; where the difference is within noise, the candidate listed
first is chosen. Validation and test images take no part.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from fewclip.classifier import Classifier
from fewclip.errors import StoppedError
from fewclip.heads import FeatureSample, folds_from_arrays, folds_to_arrays
from fewclip.selection.candidates import CHEAP, TRAINED, ZERO_SHOT, Candidate
from fewclip.selection.cross_validation import CrossValidation, tower_of, with_candidate
from fewclip.selection.evaluated import (
    FAR,
    HOPELESS,
    OUT_OF_TIME,
    Evaluated,
    Run,
    Selection,
    behind,
    choose,
    training_groups,
)
from fewclip.selection.kept_folds import KeptFolds
from fewclip.system.blas import one_blas_thread
from fewclip.system.reporting import ReportProgress, report_nothing
from fewclip.training import Plan, checkpoint, execute
from fewclip.training.progress import SILENT, Callbacks

LOST = 0.02  # accuracy on new classes, beyond noise, that no choice may cost


def default_budget(images: int) -> float:
    """Seconds: one minute plus two seconds per training image, at most a quarter of an hour.

    Enough for every candidate on `micro`; a large backbone on a CPU may get no further than heads.
    """
    return min(60.0 + 2.0 * images, 900.0)


def select(
    plan: Plan,
    *,
    budget: float | None = None,
    report_progress: ReportProgress = report_nothing,
    stop: Callable[[], bool] | None = None,
) -> Selection:
    """Evaluate the candidates on folds of the plan's training images and choose one.

    Args:
        budget: seconds; None for `default_budget`. Cheap candidates always finish.
        report_progress: called with a line for people after every step.
        stop: polled while methods train.

    Raises:
        StoppedError: `stop` returned True, or Ctrl-C was pressed.
    """
    return _Selector(plan, budget, report_progress, stop).run()


class _Selector:
    def __init__(
        self,
        plan: Plan,
        budget: float | None,
        report_progress: ReportProgress,
        stop: Callable[[], bool] | None,
    ) -> None:
        self.cv = CrossValidation(plan)
        self.begin = time.monotonic()
        self.budget = default_budget(len(self.cv.labels)) if budget is None else budget
        self.report_progress = report_progress
        self.stop = stop or (lambda: False)
        trained = TRAINED if plan.backbone.has_blocks else ()
        self.rows = self.cv.empty_rows([*CHEAP, *trained])
        self.groups = training_groups(self.rows[len(CHEAP) :])
        self.kept = KeptFolds(plan)
        self.sample: FeatureSample | None = None

    def run(self) -> Selection:
        try:
            best = self._best()
        except (StoppedError, KeyboardInterrupt):
            if self.cv.plan.keep_best and self.rows[0].images.any():
                return self._best_so_far()
            raise self._stopped() from None
        self.report_progress(f"chosen: {best.candidate.name}")
        return self._selection(best)

    def _best(self) -> Evaluated:
        if not len(self.cv.held(None)):  # nothing to choose by
            return next(row for row in self.rows if row.candidate is ZERO_SHOT)
        self._evaluate_heads()
        self._first_fold()
        self._more_folds()
        return self._keeping_new(choose(self.rows))

    def _selection(self, best: Evaluated) -> Selection:
        return Selection(
            best.candidate,
            tuple(self.rows),
            self.budget,
            self._spent(),
            self.sample,
            # Without OOD terms there would be a temperature, but no threshold of 'unknown'.
            tuple(best.folds) if all(fold.ood_terms for fold in best.folds) else (),
        )

    def _best_so_far(self) -> Selection:
        """The best head: a user who stops the choice will not wait for anything to train."""
        best = choose(self.rows[: len(CHEAP)])
        best.note = "the best when the choice was stopped"
        self.report_progress(f"stopped; the best so far is {best.candidate.name}")
        return self._selection(best)

    def _stopped(self) -> StoppedError:
        """How far the choice got, and how to go on or do with less."""
        tried = sum(bool(row.images.any()) for row in self.rows)
        message = f"stopped while 'auto' was choosing: {tried} of {len(self.rows)} candidates tried"
        if tried:
            best = choose(self.rows[: len(CHEAP)]).candidate.name
            message += f"; keep_best (--keep-best) would have taken the best head so far, {best}"
        folder = self.cv.plan.checkpoint
        if folder is None or not checkpoint.exists(folder):
            return StoppedError(message)
        return StoppedError(f"{message}; continue from {folder}", str(folder))

    def _spent(self) -> float:
        return time.monotonic() - self.begin

    def _over(self) -> bool:
        return self.stop() or self._spent() > self.budget

    def _first_fold(self) -> None:
        """Evaluate every method that trains, with the augmentations that could still win."""
        for group in self.groups:
            method, leader = group[0].candidate.method, choose(self.rows)
            tried = [r for r in self.rows if r.candidate.method == method and r.images.any()]
            if tried and all(behind(row, leader, FAR) for row in tried):
                for row in group:
                    row.note = f"not tried: {tried[0].candidate.name} is far behind"
            else:
                self._evaluate(group, 0)

    def _more_folds(self) -> None:
        """Evaluate the best trained candidate of the first fold on more, while it could win.

        A fold of a few images tells little, so one listed earlier goes on unless it is hopeless.
        """
        tried = [row for row in self.rows[len(CHEAP) :] if row.images.any()]
        if not tried:
            return
        first = tried[0]
        for row in tried[1:]:
            if behind(first, row, HOPELESS):
                first = row
        going_on = next(group for group in self.groups if first in group)
        for row in tried:
            # A candidate with one fold only must not be chosen because it was lucky on it.
            if row not in going_on:
                row.note, row.dropped = f"{first.candidate.name} went on after one fold", True
        for k in range(1, self.cv.folds):
            leader = choose(self.rows)
            if all(behind(row, leader, HOPELESS) for row in going_on):
                first.note = "cannot win any more"
                return
            if k > 1 and not self._has_time(going_on):
                first.note = OUT_OF_TIME
                return
            if not self._evaluate(going_on, k):
                return

    def _has_time(self, group: Sequence[Evaluated]) -> bool:
        """Whether another fold leaves time for the new classes, which take no longer than a fold.

        Nothing that trains is chosen without them, however many folds it was evaluated on.
        """
        return self.budget - self._spent() >= 2 * group[0].costs[-1].seconds

    def _evaluate_heads(self) -> None:
        """Evaluate every candidate that needs features only, after one pass over the images."""
        rows = self.rows[: len(CHEAP)]
        self.report_progress(f"passing {len(self.cv.labels)} training images")
        found = self.cv.evaluate_heads([row.candidate for row in rows])
        for row, (run, self.sample) in zip(rows, found, strict=True):
            self._record(row, run)

    def _evaluate(self, group: Sequence[Evaluated], k: int) -> bool:
        """Evaluate on one more fold a candidate that trains, and those that share its training.

        Returns:
            False if the budget ended first.
        """
        candidates = [row.candidate for row in group]
        runs = self.kept.find(candidates, k)
        if runs is not None:  # of a choice that was stopped: they take as long as they took then
            self.begin -= runs[0].cost.seconds
        else:
            self._report_line(f"trying {candidates[0].name} on part {k + 1} of {self.cv.folds}")
            runs = self.cv.evaluate_trained(candidates, k, self.budget - self._spent(), self.stop)
            if runs is None:
                for row in group:
                    row.note = OUT_OF_TIME
                return False
            self.kept.add(candidates, k, runs)
        for row, run in zip(group, runs, strict=True):
            self._record(row, run)
        return True

    def _record(self, row: Evaluated, run: Run) -> None:
        row.add(run)
        self._report_line(f"{row.candidate.name}: {row.accuracy:.1%} right out of fold")

    def _report_line(self, line: str) -> None:
        """What is being done, the best candidate so far, and what is left of the budget."""
        tried = [row for row in self.rows if row.images.any()]
        best = ""
        if tried:
            leader = choose(tried)
            best = f"; best so far: {leader.candidate.name}, {leader.accuracy:.1%} right"
        self.report_progress(f"{line}{best}; {max(self.budget - self._spent(), 0):.0f} s left")

    def _keeping_new(self, best: Evaluated) -> Evaluated:
        """`best`, unless it loses accuracy on classes that are known by name alone.

        Heads on frozen features leave the text's logits alone, so new classes keep zero-shot's
        accuracy by construction. A method that trains is trained on the first half of the classes
        and evaluated on the other half's training images. A head on tuned features has no logits
        for those, so its towers are evaluated.
        """
        half = (len(self.cv.plan.phrases) + 1) // 2
        if not best.candidate.trains or half < 2 or half == len(self.cv.plan.phrases):
            return best
        try:
            tower = tower_of(self.cv.plan, best.candidate)
            zero_shot, tuned = (self._new_accuracy(each, half) for each in (ZERO_SHOT, tower))
        except StoppedError:
            if self.stop() or self._spent() <= self.budget:  # `stop`, or Ctrl-C
                raise
            best.note = "not chosen: the budget ended before it was tried on new classes"
        else:
            best.note = f"new classes by name: {tuned:.1%}, zero-shot {zero_shot:.1%}"
            noise = float(np.sqrt(0.25 / (self.cv.labels >= half).sum()))
            if tuned >= zero_shot - LOST - noise:
                return best
            best.note += "; not chosen for that"
        return choose([row for row in self.rows if not row.candidate.trains])

    def _new_accuracy(self, candidate: Candidate, half: int) -> float:
        """On classes from `half` on, told apart by name alone after training on those before."""
        old, new = map(np.flatnonzero, (self.cv.labels < half, self.cv.labels >= half))
        phrases = dict(list(self.cv.plan.phrases.items())[:half])
        others = dict(list(self.cv.plan.phrases.items())[half:])
        plan = self.cv.part(candidate, old)
        split = dataclasses.replace(plan.split, classes=tuple(phrases), phrases=phrases)
        clf = execute(
            dataclasses.replace(plan, split=split, phrases=phrases), Callbacks(stop=self._over)
        )
        clf = clf.with_classes(others)
        proba = clf.predict_proba([self.cv.plan.split.train[i].image for i in new])
        return float((proba.argmax(1) + half == self.cv.labels[new]).mean())


@one_blas_thread
def choose_and_execute(plan: Plan, callbacks: Callbacks = SILENT) -> Classifier:
    """Choose the method if the plan leaves it open, then `training.execute`.

    What was tried goes into the card. A checkpoint keeps the choice, so a resumed run goes on
    training the same method; until then, it keeps what was evaluated by training.
    """
    if not plan.automatic:
        return execute(plan, callbacks)
    plan = dataclasses.replace(plan, automatic=False, references=False)
    folder = plan.checkpoint
    kept = None if folder is None else checkpoint.read_choice(folder, plan.run_id)
    found, arrays = kept or ({}, {})
    candidate = next((c for c in (*CHEAP, *TRAINED) if c.name == found.get("chosen")), None)
    sample, folds = None, folds_from_arrays(arrays)
    if candidate is None:
        selection = select(
            plan,
            budget=plan.budget,
            report_progress=callbacks.report_progress,
            stop=callbacks.stop,
        )
        candidate, found, sample = selection.chosen, selection.to_dict(), selection.sample
        folds = selection.folds
        if folder is not None:
            checkpoint.save_choice(folder, plan.run_id, found, folds_to_arrays(folds))
    clf = execute(
        with_candidate(plan, candidate),
        callbacks,
        sample=None if candidate.trains else sample,
        folds=folds or None,
    )
    training = {**clf.card.training, "run_id": plan.run_id, "selection": found}
    clf.card = dataclasses.replace(clf.card, training=training)
    return clf
