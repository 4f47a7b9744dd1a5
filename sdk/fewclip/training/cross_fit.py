"""For a head on tuned features: what towers tuned without some of the images say of those."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from fewclip.errors import StoppedError
from fewclip.heads import HeldOut, assign_folds
from fewclip.heads.linear import Ints
from fewclip.methods.base import Method
from fewclip.methods.tuned_head import TunedHead
from fewclip.ood import OODScore
from fewclip.training.loop import Progress
from fewclip.training.ood import fit_ood_score, parts_of
from fewclip.training.plan import Plan
from fewclip.training.progress import quiet_stage
from fewclip.training.tuning import features_of, pixel_store, tune

FOLDS = 4  # as "auto" has, which hands its own folds on


def divide(labels: Ints, seed: int, folds: int = FOLDS) -> Ints:
    """(n,) class of each training image -> (n,) which fold holds it out; -1 for none.

    There are as many folds as the largest class has images, at most `folds`: none is empty.
    """
    folds = min(folds, int(np.bincount(labels).max()))
    return assign_folds(labels, folds, np.random.default_rng([seed, 5]))


def cross_fit(
    plan: Plan,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    report_stage: Callable[[str], None] = quiet_stage,
) -> Iterator[HeldOut]:
    """Tune the plan's method once for each fold of its training images, without the fold.

    Args:
        plan: of a `TunedHead`; its backbone as it was before any training, which it stays.

    Yields:
        One result for each fold; none if every class has a single image.
    """
    labels = np.array([item.label for item in plan.split.train], np.int64)
    fold = divide(labels, plan.seed)
    numbers = np.unique(fold[fold >= 0])
    for k in numbers:
        report_stage(f"tuning without part {k + 1} of {len(numbers)}, to weigh the head")
        kept, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        part = _part(plan, kept, int(k))
        method, store = part.build(), pixel_store(part)
        try:
            tune(part, method, store, progress=progress, stop=stop)
        except StoppedError as error:
            raise _of_whole_run(error, plan) from None
        yield held_out(plan, method, kept, held)


def _of_whole_run(error: StoppedError, plan: Plan) -> StoppedError:
    """The error of a part, naming the checkpoint from which the whole run can be resumed."""
    if plan.checkpoint is None:
        return error
    where = f"stopped while the head was weighed; continue from {plan.checkpoint}"
    return StoppedError(where, str(plan.checkpoint))


def held_out(
    plan: Plan, method: Method, kept: Ints, held: Ints, ood_score: OODScore | None = None
) -> HeldOut:
    """What a method tuned on some of the plan's images, and heads on its features, say of others.

    Args:
        kept, held: indices of the images it was tuned on, and of the others.
        ood_score: of its towers, if it is already fitted.
    """
    assert isinstance(method, TunedHead)
    items = plan.split.train
    train, test = (
        features_of(plan, method, some, [item.image for item in some], views)
        for some, views in (
            ([items[i] for i in kept], method.options.views),
            ([items[i] for i in held], 0),
        )
    )
    if ood_score is None:
        ood_score = fit_ood_score(method, method, list(plan.phrases.values()), train, None)
    return method.held_out(train, test, held, ood_score.terms(parts_of(test)))


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
