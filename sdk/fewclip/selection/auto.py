"""`method="auto"`: the method that serves these training images best, within a budget.

Heads on frozen features are cheap and are evaluated on every fold. Methods that train are evaluated
on one fold first, with gentle crops and then with the published ones unless they are far behind,
and on more folds only while they could still win. The choice is by out-of-fold log-loss, each
candidate at its own best temperature; where the difference is within noise, the candidate listed
first is chosen. Validation and test images take no part.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fewclip import decide
from fewclip.classifier import Classifier
from fewclip.data import Split
from fewclip.errors import StoppedError
from fewclip.heads import FeatureSample, assign_folds, fit_mixture, log_loss, one_blas_thread
from fewclip.methods import registry
from fewclip.methods.base import Method
from fewclip.methods.frozen_head import FrozenHead
from fewclip.methods.tuned_tower import TunedTower
from fewclip.selection.candidates import CHEAP, TRAINED, ZERO_SHOT, Candidate
from fewclip.selection.evaluated import FAR, Evaluated, Selection, behind, choose
from fewclip.training import Plan, Progress, execute
from fewclip.training.checkpoint import read_choice, save_choice
from fewclip.training.features import sample_features
from fewclip.training.progress import quiet_stage

FOLDS = 4
LOST = 0.02  # accuracy on new classes, beyond noise, that no choice may cost

Floats = npt.NDArray[np.float64]


def default_budget(images: int) -> float:
    """Seconds: one minute plus half a second per training image, at most a quarter of an hour.

    Enough for every candidate on `micro`; a large backbone on a CPU may get no further than heads.
    """
    return min(60.0 + 0.5 * images, 900.0)


def select(
    plan: Plan,
    *,
    budget: float | None = None,
    on_report: Callable[[str], None] = quiet_stage,
    stop: Callable[[], bool] | None = None,
) -> Selection:
    """Evaluate the candidates on folds of the plan's training images and choose one.

    Args:
        budget: seconds; None for `default_budget`. Cheap candidates always finish.
        on_report: called with a line for people after every step.
        stop: polled while methods train.

    Raises:
        StoppedError: `stop` returned True.
    """
    return _Selector(plan, budget, on_report, stop).run()


class _Selector:
    def __init__(
        self,
        plan: Plan,
        budget: float | None,
        on_report: Callable[[str], None],
        stop: Callable[[], bool] | None,
    ) -> None:
        self.plan = plan
        self.labels = np.array([item.label for item in plan.split.train], np.int64)
        self.fold = assign_folds(self.labels, FOLDS, np.random.default_rng([plan.seed, 5]))
        self.begin = time.monotonic()
        self.budget = default_budget(len(self.labels)) if budget is None else budget
        self.report = on_report
        self.stop = stop or (lambda: False)
        trained = TRAINED if plan.backbone.has_blocks else ()
        self.rows = [self._start(candidate) for candidate in (*CHEAP, *trained)]

    def run(self) -> Selection:
        rows = self.rows
        sample = None
        if (self.fold >= 0).any():
            sample = self._evaluate_heads()
            try:
                self._first_fold()
                self._more_folds()
            except (StoppedError, KeyboardInterrupt):
                if not self.plan.keep_best:
                    raise
                return self._best_so_far(sample)
        else:  # nothing to choose by
            rows = [row for row in rows if row.candidate is ZERO_SHOT]
        best = self._keeping_new(choose(rows))
        self.report(f"chosen: {best.candidate.name}")
        return Selection(best.candidate, tuple(self.rows), self.budget, self._spent(), sample)

    def _best_so_far(self, sample: FeatureSample) -> Selection:
        """The best of those that need no training: a user who stops will not wait for any."""
        best = choose(self.rows[: len(CHEAP)])
        best.note = "the best when the choice was stopped"
        self.report(f"stopped; the best so far is {best.candidate.name}")
        return Selection(best.candidate, tuple(self.rows), self.budget, self._spent(), sample)

    def _start(self, candidate: Candidate) -> Evaluated:
        nothing = np.full(len(self.labels), np.nan)
        return Evaluated(candidate, nothing, nothing.copy())

    def _spent(self) -> float:
        return time.monotonic() - self.begin

    def _over(self) -> bool:
        return self.stop() or self._spent() > self.budget

    def _first_fold(self) -> None:
        """Evaluate every method that trains, with the augmentations that could still win."""
        for row in self.rows[len(CHEAP) :]:
            if row.candidate.shares:
                continue
            tried = [
                other
                for other in self.rows
                if other.candidate.method == row.candidate.method and other.images.any()
            ]
            leader = choose(self.rows)
            if tried and all(behind(other, leader, FAR) for other in tried):
                for each in [row, *self._sharing(row)]:
                    each.note = f"not tried: {tried[0].candidate.name} is far behind"
            else:
                self._evaluate(row, 0)

    def _sharing(self, row: Evaluated) -> list[Evaluated]:
        """The candidates that this one's training also yields."""
        return [other for other in self.rows if other.candidate.shares == row.candidate.name]

    def _more_folds(self) -> None:
        """Evaluate the best trained candidate of the first fold on more, while it could win."""
        tried = [row for row in self.rows[len(CHEAP) :] if row.images.any()]
        if not tried:
            return
        first = min(tried, key=lambda row: float(np.nanmean(row.loss)))
        source = first.candidate.shares
        trained = next((row for row in tried if row.candidate.name == source), first)
        # Luck on the first fold alone must not decide for a candidate that goes no further.
        going_on = {row.candidate.name for row in (trained, *self._sharing(trained))}
        for row in tried:
            if row.candidate.name not in going_on:
                row.note, row.dropped = f"behind {first.candidate.name} on the first fold", True
        for k in range(1, FOLDS):
            if behind(first, choose(self.rows)):
                first.note = "cannot win any more"
                return
            if not self._evaluate(trained, k):
                return

    def _evaluate_heads(self) -> FeatureSample:
        """Evaluate every candidate that needs features only, after one pass over the images."""
        items, rows = self.plan.split.train, self.rows[: len(CHEAP)]
        zero_shot = next(row for row in rows if row.candidate is ZERO_SHOT)
        heads = [row for row in rows if row is not zero_shot]
        self.report(f"passing {len(items)} training images")
        method = self._build(heads[0].candidate)
        begin = time.monotonic()
        sample = sample_features(
            method,
            [item.image for item in items],
            [item.label for item in items],
            list(self.plan.phrases.values()),
            views=method.options.views,
            crop_area=method.options.crop_area,
            flip=method.options.flip,
            seed=self.plan.seed,
        )
        itm = sample.logits_itm.astype(np.float64)
        zero_shot.seconds = time.monotonic() - begin
        self._record(zero_shot, itm, np.flatnonzero(self.fold >= 0))
        for row in heads:
            begin = time.monotonic()
            head = self._build(row.candidate)
            assert isinstance(head, FrozenHead)
            fitted = head.fit(sample, self.plan.seed)
            answers = np.full_like(itm, np.nan)
            own = fitted.images
            answers[own] = (1 - fitted.weight) * itm[own] + fitted.weight * fitted.logits
            row.seconds = time.monotonic() - begin
            self._record(row, answers, own)
        return sample

    def _build(self, candidate: Candidate) -> Method:
        plan = with_candidate(self.plan, candidate)
        return registry.build(
            plan.method,
            plan.backbone,
            plan.options,
            template=plan.template,
            phrases=list(plan.phrases.values()),
            generator=torch.Generator().manual_seed(plan.seed),
        )

    def _evaluate(self, row: Evaluated, k: int) -> bool:
        """Evaluate on one more fold a candidate that trains, and those that share its training.

        Returns:
            False if the budget ended first.
        """
        self._report_line(f"trying {row.candidate.name} on part {k + 1} of {FOLDS}")
        held = np.flatnonzero(self.fold == k)
        sharing = self._sharing(row)
        begin = time.monotonic()
        try:
            answers = self._answers(row.candidate, held, sharing)
        except StoppedError:
            if self.stop():
                raise
            for each in [row, *sharing]:
                each.note = "the budget ended first"
            return False
        finally:
            row.seconds += time.monotonic() - begin
        for one, found in zip([row, *sharing], answers, strict=True):
            logits = np.full((len(self.labels), len(self.plan.phrases)), np.nan)
            logits[held] = found
            self._record(one, logits, held)
        return True

    def _record(self, row: Evaluated, logits: Floats, images: npt.NDArray[np.int64]) -> None:
        """Record the loss of (n, M) logits on some images, at the temperature that suits best."""
        labels = self.labels[images]
        scaled = fit_mixture(logits[images], [], labels).logits(logits[images], [])
        row.loss[images] = log_loss(scaled, labels)
        row.right[images] = scaled.argmax(1) == labels
        right = float(np.nanmean(row.right))
        self._report_line(f"{row.candidate.name}: {right:.1%} right out of fold")

    def _report_line(self, line: str) -> None:
        """What is being done, the best candidate so far, and what is left of the budget."""
        tried = [row for row in self.rows if row.images.any()]
        best = ""
        if tried:
            leader = choose(tried)
            best = f"; best so far: {leader.candidate.name}, {np.nanmean(leader.right):.1%} right"
        self.report(f"{line}{best}; {max(self.budget - self._spent(), 0):.0f} s left")

    def _answers(
        self, candidate: Candidate, held: npt.NDArray[np.int64], sharing: Sequence[Evaluated]
    ) -> list[Floats]:
        """(h, M) log-probabilities of the held images, from a model that has not seen them.

        First the candidate's, then those of the candidates that share its training.
        """
        train = np.setdiff1d(np.arange(len(self.labels)), held)
        clf = execute(self._plan(candidate, train), stop=self._over)
        images = [self.plan.split.train[i].image for i in held]
        found = [_log_probabilities(clf, images)]
        start = dict(self.plan.backbone.clip.named_parameters())
        for row in sharing:
            assert isinstance(clf.method, TunedTower)
            # At most one shares a training: a second would start from the first one's weights.
            clf.method.interpolate(start, row.candidate.options["interpolation"])
            found.append(_log_probabilities(Classifier(clf.method, clf.card), images))
        return found

    def _plan(self, candidate: Candidate, train: npt.NDArray[np.int64]) -> Plan:
        """The candidate on some training images, with no validation images and no checkpoint."""
        part: Split = dataclasses.replace(
            self.plan.split, train=[self.plan.split.train[i] for i in train], val=[]
        )
        return with_candidate(self.plan, candidate, split=part, checkpoint=None)

    def _keeping_new(self, best: Evaluated) -> Evaluated:
        """`best`, unless it loses accuracy on classes that are known by name alone.

        Heads on frozen features leave the text's logits alone, so new classes keep zero-shot's
        accuracy by construction. A method that trains is trained on the first half of the classes
        and evaluated on the other half's training images.
        """
        if not best.candidate.trains:
            return best
        half = (len(self.plan.phrases) + 1) // 2
        if half < 2 or half == len(self.plan.phrases):
            return best
        old, new = (np.flatnonzero(mask) for mask in (self.labels < half, self.labels >= half))
        try:
            answers = [self._new_accuracy(c, old, new, half) for c in (ZERO_SHOT, best.candidate)]
            best.note = f"new classes by name: {answers[1]:.1%}, zero-shot {answers[0]:.1%}"
            if answers[1] >= answers[0] - LOST - float(np.sqrt(0.25 / len(new))):
                return best
            best.note += "; not chosen for that"
        except StoppedError:
            if self.stop():
                raise
            best.note = "not chosen: the budget ended before it was tried on new classes"
        return choose([row for row in self.rows if not row.candidate.trains])

    def _new_accuracy(
        self,
        candidate: Candidate,
        old: npt.NDArray[np.int64],
        new: npt.NDArray[np.int64],
        half: int,
    ) -> float:
        phrases = dict(list(self.plan.phrases.items())[:half])
        others = dict(list(self.plan.phrases.items())[half:])
        plan = self._plan(candidate, old)
        split = dataclasses.replace(plan.split, classes=tuple(phrases), phrases=phrases)
        clf = execute(dataclasses.replace(plan, split=split, phrases=phrases), stop=self._over)
        clf = clf.with_classes(others)
        proba = clf.predict_proba([self.plan.split.train[i].image for i in new])
        return float((proba.argmax(1) + half == self.labels[new]).mean())


def _log_probabilities(clf: Classifier, images: Sequence[Any]) -> Floats:
    """(n, M), before any temperature."""
    outputs = clf.model_outputs(images)
    proba = decide.probabilities(outputs.logits_itm, outputs.logits_cat, clf.card.head)
    return np.log(np.maximum(proba, 1e-30))


def with_candidate(plan: Plan, candidate: Candidate, **changes: Any) -> Plan:
    """The plan with the candidate's method; one that trains has a backbone of its own."""
    tower = copy.deepcopy(plan.backbone) if candidate.trains else plan.backbone
    defaults = registry.backbone_defaults(candidate.method, tower)
    options = registry.make_options(candidate.method, candidate.options, defaults)
    run = {**plan.run, "method": candidate.method, "options": options}
    return dataclasses.replace(
        plan,
        method=candidate.method,
        options=options,
        backbone=tower,
        run=json.loads(json.dumps(run)),
        **changes,
    )


@one_blas_thread
def choose_and_execute(
    plan: Plan,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    report_stage: Callable[[str], None] = quiet_stage,
) -> Classifier:
    """Choose the method if the plan leaves it open, then `training.execute`.

    What was tried goes into the card. A checkpoint keeps the choice, so a resumed run goes on
    training the same method.
    """
    if not plan.automatic:
        return execute(plan, progress=progress, stop=stop, report_stage=report_stage)
    plan = dataclasses.replace(plan, automatic=False, references=False)
    found = None if plan.checkpoint is None else read_choice(plan.checkpoint, plan.run_id)
    candidate = next((c for c in (*CHEAP, *TRAINED) if found and c.name == found["chosen"]), None)
    sample = None
    if candidate is None:
        selection = select(plan, budget=plan.budget, on_report=report_stage, stop=stop)
        candidate, found, sample = selection.chosen, selection.to_dict(), selection.sample
        if plan.checkpoint is not None:
            save_choice(plan.checkpoint, plan.run_id, found)
    clf = execute(
        with_candidate(plan, candidate),
        progress=progress,
        stop=stop,
        report_stage=report_stage,
        sample=None if candidate.trains else sample,
    )
    training = {**clf.card.training, "run_id": plan.run_id, "selection": found}
    clf.card = dataclasses.replace(clf.card, training=training)
    return clf
