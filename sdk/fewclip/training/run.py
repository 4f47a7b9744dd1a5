"""A plan -> Classifier: trained, calibrated and measured. It chooses no method."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewclip import artifact
from fewclip.classifier import Classifier, new_card, zero_shot_on
from fewclip.contract import Calibration, Card
from fewclip.data import PixelStore
from fewclip.heads import FeatureSample, FoldOutputs
from fewclip.methods.base import Method
from fewclip.methods.frozen_head import FrozenHead
from fewclip.methods.linear_head import LinearHead
from fewclip.methods.tuned_head import TunedHead
from fewclip.ood import OODScore
from fewclip.system.reporting import ReportProgress
from fewclip.training.calibration import calibrated, measure
from fewclip.training.cross_fit import cross_fit, trainings_of
from fewclip.training.loop import History
from fewclip.training.ood import fit_ood_score
from fewclip.training.plan import Plan
from fewclip.training.progress import SILENT, Callbacks
from fewclip.training.references import References, measure_references
from fewclip.training.tuning import features_of, pixel_store, tune

VALIDATION_FILES = 1000  # at most this many are named in the card


def execute(
    plan: Plan,
    callbacks: Callbacks = SILENT,
    *,
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
    """
    report_progress = callbacks.report_progress
    zero_shot = zero_shot_on(plan.backbone, plan.phrases, plan.template)
    frozen_val = _frozen_val(plan, zero_shot, report_progress)
    before = None if frozen_val is None else measure(zero_shot, frozen_val)
    tuned, store = plan.build(), pixel_store(plan)
    untuned = _untuned(plan) if isinstance(tuned, TunedHead) and folds is None else None
    frozen_train = _frozen_train(plan, zero_shot, tuned, store)
    references = _references(plan, frozen_train, frozen_val, report_progress)
    history = _trained(plan, tuned, store, callbacks, weighed=untuned is not None)
    if sample is None:
        sample = _features(plan, tuned, store, frozen_train, report_progress)
    if untuned is not None:
        folds = list(cross_fit(untuned, callbacks))
    unseen = _out_of_fold(tuned, sample, folds or (), plan)
    val = _val(plan, tuned, frozen_val)
    clf = Classifier(
        tuned,
        _uncalibrated_card(plan, tuned, history),
        ood_score=_ood_score(plan, tuned, zero_shot, sample, val, folds),
        validation=[(item.image, plan.split.classes[item.label]) for item in plan.split.val],
    )
    held = sample.take(np.arange(0)) if val is None else val
    return calibrated(clf, before, held, unseen, references)


def _frozen_val(
    plan: Plan, zero_shot: Classifier, report_progress: ReportProgress
) -> FeatureSample | None:
    """The validation images on the frozen backbone; None without any."""
    if not plan.split.val:
        return None
    report_progress(f"measuring zero-shot on {len(plan.split.val)} images")
    return features_of(plan, zero_shot.method, plan.split.val)


def _untuned(plan: Plan) -> Plan:
    """The plan on a backbone that its training leaves alone: towers are tuned again from there.

    No other method has a copy made: a backbone may be large.
    """
    return dataclasses.replace(plan, backbone=copy.deepcopy(plan.backbone))


def _frozen_train(
    plan: Plan, zero_shot: Classifier, tuned: Method, store: PixelStore
) -> FeatureSample | None:
    """The training images on the frozen backbone, where `_references` needs them."""
    if not (plan.references and tuned.trains):
        return None
    return features_of(plan, zero_shot.method, plan.split.train, images=store.images())


def _references(
    plan: Plan,
    frozen_train: FeatureSample | None,
    frozen_val: FeatureSample | None,
    report_progress: ReportProgress,
) -> References | None:
    """What simpler methods reach, reported before a person waits for minutes."""
    if frozen_train is None:
        return None
    references = measure_references(plan, frozen_train, frozen_val)
    report_progress(references.describe())
    return references


def _trained(
    plan: Plan, tuned: Method, store: PixelStore, callbacks: Callbacks, *, weighed: bool
) -> History:
    """Train the method in place, if it trains.

    Args:
        weighed: whether towers will be tuned once more for each fold.
    """
    if not tuned.trains:
        return History((), ())
    callbacks.report_progress(f"preparing {len(plan.phrases)} classes")
    return tune(plan, tuned, store, callbacks, later=trainings_of(plan) if weighed else 0)


def _features(
    plan: Plan,
    tuned: Method,
    store: PixelStore,
    frozen_train: FeatureSample | None,
    report_progress: ReportProgress,
) -> FeatureSample:
    """The training images on the method's image tower, in the views that its head is fitted on."""
    if frozen_train is not None and not tuned.trains_images:
        return frozen_train
    report_progress(f"passing {len(plan.split.train)} training images")
    views = plan.options["views"] if isinstance(tuned, LinearHead) else 0
    return features_of(plan, tuned, plan.split.train, views=views, images=store.images())


def _val(plan: Plan, tuned: Method, frozen_val: FeatureSample | None) -> FeatureSample | None:
    """The validation images on the method's image tower; None without any."""
    if frozen_val is None or not tuned.trains_images:
        return frozen_val
    return features_of(plan, tuned, plan.split.val)


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


def _ood_score(
    plan: Plan,
    tuned: Method,
    zero_shot: Classifier,
    sample: FeatureSample,
    val: FeatureSample | None,
    folds: Sequence[FoldOutputs] | None,
) -> OODScore:
    """Fitted to `sample`; scaled by images that the towers have not seen, if there are any."""
    phrases = list(plan.phrases.values())
    unseen = FoldOutputs.join(folds).ood_terms if folds else None
    return fit_ood_score(tuned, zero_shot.method, phrases, sample, val, unseen)


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
