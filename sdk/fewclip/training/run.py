"""A plan -> Classifier: trained, calibrated and measured. It chooses no method."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fewclip import artifact
from fewclip.classifier import Classifier, new_card, zero_shot_on
from fewclip.contract import Calibration, Card
from fewclip.heads import FeatureSample, FoldOutputs
from fewclip.heads.linear import Floats
from fewclip.methods.base import Method
from fewclip.methods.frozen_head import FrozenHead
from fewclip.methods.tuned_head import TunedHead
from fewclip.training.calibration import calibrated, measure
from fewclip.training.cross_fit import cross_fit
from fewclip.training.loop import History, Progress
from fewclip.training.ood import fit_ood_score
from fewclip.training.plan import Plan
from fewclip.training.progress import quiet_stage
from fewclip.training.references import measure_references
from fewclip.training.tuning import features_of, pixel_store, tune

VALIDATION_FILES = 1000  # at most this many are named in the card


def execute(
    plan: Plan,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    report_stage: Callable[[str], None] = quiet_stage,
    sample: FeatureSample | None = None,
    folds: Sequence[FoldOutputs] | None = None,
) -> Classifier:
    """Train, calibrate and measure what `make_plan` laid out; its method must be chosen already.

    Args:
        sample: features of the training images on the frozen backbone, if they are already
            computed in the views that the method asks for.
        folds: the method's outputs out of fold, if they are already computed. They weigh a head
            on tuned features, and calibrate any method that trains if there are no validation
            images.
        progress, stop: as `fewclip.adapt` takes them.
        report_stage: called with a few words before each part that may take long.
    """
    split, phrases = plan.split, list(plan.phrases.values())
    zero_shot = zero_shot_on(plan.backbone, plan.phrases, plan.template)
    frozen_val, frozen_train, before, references = None, None, None, None
    if split.val:
        report_stage(f"measuring zero-shot on {len(split.val)} images")
        frozen_val = features_of(plan, zero_shot.method, split.val)
        before = measure(zero_shot, frozen_val)
    tuned = plan.build()
    # Only what a head on tuned features needs for its folds is kept: a backbone may be large.
    folds_wanted = isinstance(tuned, TunedHead) and folds is None
    pretrained = copy.deepcopy(plan.backbone) if folds_wanted else plan.backbone
    store = pixel_store(plan)
    if plan.references and tuned.trains:
        frozen_train = features_of(plan, zero_shot.method, split.train, images=store.images())
        references = measure_references(plan, frozen_train, frozen_val)
        report_stage(references.describe())
    history = History((), ())
    if tuned.trains:
        report_stage(f"preparing {len(phrases)} classes")
        history = tune(plan, tuned, store, progress=progress, stop=stop)
    if sample is None and not tuned.trains_images:
        sample = frozen_train
    if sample is None:
        report_stage(f"passing {len(split.train)} training images")
        views = plan.options["views"] if isinstance(tuned, FrozenHead) else 0
        sample = features_of(plan, tuned, split.train, views=views, images=store.images())
    if isinstance(tuned, TunedHead) and folds is None:
        again = dataclasses.replace(plan, backbone=pretrained)
        folds = list(cross_fit(again, progress=progress, stop=stop, report_stage=report_stage))
    unseen = _out_of_fold(tuned, sample, folds or (), plan)
    held = frozen_val
    if split.val and tuned.trains_images:
        held = features_of(plan, tuned, split.val)
    clf = Classifier(
        tuned,
        _uncalibrated_card(plan, tuned, history),
        ood_score=fit_ood_score(tuned, zero_shot.method, phrases, sample, held, _ood_terms(folds)),
        validation=[(item.image, split.classes[item.label]) for item in split.val],
    )
    held = sample.take(np.arange(0)) if held is None else held
    return calibrated(clf, before, held, unseen, references)


def _out_of_fold(
    tuned: Method, sample: FeatureSample, folds: Sequence[FoldOutputs], plan: Plan
) -> FoldOutputs | None:
    """Fit the method's linear head, which training did not touch; returns outputs out of fold.

    A method without a head has those of `folds`, which are not needed beside validation images.
    """
    if isinstance(tuned, TunedHead):
        return tuned.fit_on_folds(sample, folds).out_of_fold
    if isinstance(tuned, FrozenHead):
        return tuned.fit(sample, plan.seed).out_of_fold
    return None if plan.split.val or not folds else FoldOutputs.join(folds)


def _ood_terms(folds: Sequence[FoldOutputs] | None) -> Mapping[str, Floats] | None:
    return FoldOutputs.join(folds).ood_terms if folds else None


def _uncalibrated_card(plan: Plan, tuned: Method, history: History) -> Card:
    """The model's card before anything is measured."""
    return new_card(
        tuned,
        plan.method,
        plan.options,
        plan.phrases,
        calibration=Calibration(),
        seed=plan.seed,
        precision=plan.precision,
        data={
            "source": plan.source,
            "validation_files": _files(plan),
            **plan.split.summary(),
        },
        training={
            "run_id": plan.run_id,
            "phrases": dict(plan.phrases),
            "losses": list(history.losses),
            "resumed_from_epochs": list(history.resumed_from),
            "device": plan.backbone.device.type,
        },
    )


def _files(plan: Plan) -> list[dict[str, str]]:
    """The validation images that are files: an export in another process checks parity on them."""
    root = Path(plan.source or "")
    root = root.parent if root.is_file() else root
    return [
        {
            "path": os.path.relpath(item.image, root) if plan.source else os.fspath(item.image),
            "label": plan.split.classes[item.label],
            "sha256": artifact.sha256_file(item.image),
        }
        for item in plan.split.val[:VALIDATION_FILES]
        if isinstance(item.image, (str, os.PathLike))
    ]
