"""Outputs for each training image from towers tuned without it: a head is weighed by them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import numpy as np

from fewclip.errors import StoppedError
from fewclip.heads import FoldOutputs, assign_folds
from fewclip.heads.linear import Ints
from fewclip.methods.base import Method
from fewclip.methods.tuned_head import TunedHead
from fewclip.ood import OODScore
from fewclip.training.ood import fit_ood_score, parts_of
from fewclip.training.plan import Plan
from fewclip.training.progress import SILENT, Callbacks
from fewclip.training.tuning import features_of, pixel_store, tune

FOLDS = 4  # of "auto" and `compare` too


def divide(labels: Ints, seed: int, folds: int = FOLDS) -> Ints:
    """(n,) class of each training image -> (n,) which fold holds it out; -1 for none.

    There are as many folds as the largest class has images, at most `folds`: none is empty.
    """
    folds = min(folds, int(np.bincount(labels).max()))
    return assign_folds(labels, folds, np.random.default_rng([seed, 5]))


def cross_fit(plan: Plan, callbacks: Callbacks = SILENT) -> Iterator[FoldOutputs]:
    """Tune the plan's method once for each fold of its training images, on the others.

    Args:
        plan: of a `TunedHead`; each fold tunes a copy of its backbone, which must be untrained.

    Yields:
        The outputs for each fold; nothing if every class has a single image.
    """
    fold = _folds_of(plan)
    parts = int(fold.max()) + 1
    for k in range(parts):
        callbacks.report_progress(f"tuning without part {k + 1} of {parts}, to weigh the head")
        kept, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        part = _part(plan, kept, k)
        method, store = part.build(), pixel_store(part)
        try:
            tune(part, method, store, callbacks, later=parts - 1 - k)
        except StoppedError as error:
            raise _of_whole_run(error, plan) from None
        yield fold_outputs(plan, method, kept, held)


def trainings_of(plan: Plan) -> int:
    """How many trainings on all images take as long as `cross_fit`: each leaves one part out."""
    parts = int(_folds_of(plan).max()) + 1
    return max(parts - 1, 0)


def _folds_of(plan: Plan) -> Ints:
    return divide(np.array([item.label for item in plan.split.train], np.int64), plan.seed)


def _of_whole_run(error: StoppedError, plan: Plan) -> StoppedError:
    """The error of a part, naming the checkpoint from which the whole run can be resumed."""
    if plan.checkpoint is None:
        return error
    message = f"stopped while the head was weighed; continue from {plan.checkpoint}"
    return StoppedError(message, str(plan.checkpoint))


def fold_outputs(
    plan: Plan, method: Method, kept: Ints, held: Ints, ood_score: OODScore | None = None
) -> FoldOutputs:
    """Outputs for images of the plan, from a method tuned on others and heads on its features.

    Args:
        method: a `TunedHead`, its towers tuned on `kept`.
        kept, held: indices of the images it was tuned on, and of those to answer.
        ood_score: of its towers, if it is already fitted.
    """
    assert isinstance(method, TunedHead)
    items = plan.split.train
    train = features_of(plan, method, [items[i] for i in kept], views=method.options.views)
    test = features_of(plan, method, [items[i] for i in held])
    if ood_score is None:
        ood_score = fit_ood_score(method, method, list(plan.phrases.values()), train, None)
    return method.fold_outputs(train, test, held, ood_score.terms(parts_of(test)))


def _part(plan: Plan, kept: Ints, k: int) -> Plan:
    """The plan on some of its images, on a backbone and with a checkpoint of its own."""
    split = dataclasses.replace(plan.split, train=[plan.split.train[i] for i in kept], val=[])
    folder = plan.checkpoint
    return dataclasses.replace(
        plan,
        split=split,
        backbone=copy.deepcopy(plan.backbone),
        checkpoint=None if folder is None else folder / f"part-{k}",
        run={**plan.run, "part": k},
    )
