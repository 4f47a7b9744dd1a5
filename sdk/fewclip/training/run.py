"""A plan -> Classifier: trained, calibrated and measured. It chooses no method."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fewclip import artifact
from fewclip.classifier import Classifier, new_card, zero_shot_on
from fewclip.contract import Calibration, Card
from fewclip.data import Item, PixelStore
from fewclip.heads import FeatureSample
from fewclip.methods.base import Method
from fewclip.methods.frozen_head import FrozenHead
from fewclip.preprocess import Image
from fewclip.training.calibration import calibrated, measure
from fewclip.training.features import sample_features
from fewclip.training.loop import History, Progress, TrainingSet, train
from fewclip.training.ood import fit_ood_score
from fewclip.training.plan import Plan
from fewclip.training.progress import quiet_stage
from fewclip.training.references import measure_references

PIXEL_BUDGET = 2 * 1024**3  # bytes of decoded training images kept in memory
VALIDATION_FILES = 1000  # at most this many are named in the card


def execute(
    plan: Plan,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    report_stage: Callable[[str], None] = quiet_stage,
    sample: FeatureSample | None = None,
) -> Classifier:
    """Train, calibrate and measure what `make_plan` laid out; its method must be chosen already.

    Args:
        sample: features of the training images on the frozen backbone, if they are already
            computed in the views that the method asks for.
        progress, stop: as `fewclip.adapt` takes them.
        report_stage: called with a few words before each part that may take long.
    """
    split, phrases = plan.split, list(plan.phrases.values())
    zero_shot = zero_shot_on(plan.backbone, plan.phrases, plan.template)
    frozen_val, frozen_train, before, references = None, None, None, None
    if split.val:
        report_stage(f"measuring zero-shot on {len(split.val)} images")
        frozen_val = _validation_features(plan, zero_shot.method)
        before = measure(zero_shot, frozen_val)
    tuned = plan.build()
    store = PixelStore(split.train, plan.backbone.preprocess, PIXEL_BUDGET)
    if plan.references and tuned.trains:
        frozen_train = features_of(plan, zero_shot.method, split.train, store.images())
        references = measure_references(plan, frozen_train, frozen_val)
        report_stage(references.describe())
    history = History((), ())
    if tuned.trains:
        report_stage(f"preparing {len(phrases)} classes")
        tuned.setup(phrases)
        history = _trained(plan, tuned, store, progress, stop)
    if sample is None and not tuned.trains_images:
        sample = frozen_train
    if sample is None:
        report_stage(f"passing {len(split.train)} training images")
        views = plan.options["views"] if isinstance(tuned, FrozenHead) else 0
        sample = features_of(plan, tuned, split.train, store.images(), views)
    fitted = tuned.fit(sample, plan.seed) if isinstance(tuned, FrozenHead) else None
    held = frozen_val
    if split.val and tuned.trains_images:
        held = _validation_features(plan, tuned)
    clf = Classifier(
        tuned,
        _uncalibrated_card(plan, tuned, history),
        ood_score=fit_ood_score(tuned, zero_shot.method, phrases, sample, held),
        validation=[(item.image, split.classes[item.label]) for item in split.val],
    )
    held = sample.take(np.arange(0)) if held is None else held
    return calibrated(clf, before, sample, held, fitted, references)


def _trained(
    plan: Plan,
    tuned: Method,
    store: PixelStore,
    progress: Callable[[Progress], None] | None,
    stop: Callable[[], bool] | None,
) -> History:
    """Train the method, or resume its training, as the plan says."""
    images = TrainingSet(
        store.get,
        [item.label for item in plan.split.train],
        plan.backbone.preprocess,
        plan.options["crop_area"],
        plan.options["flip"],
    )
    return train(
        tuned,
        images,
        epochs=plan.options["epochs"],
        seed=plan.seed,
        precision=plan.precision,
        run=plan.run,
        checkpoint=plan.checkpoint,
        progress=progress,
        stop=stop,
    )


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


def _validation_features(plan: Plan, method: Method) -> FeatureSample:
    """The plan's validation images as the method's image tower sees them."""
    val = plan.split.val
    return features_of(plan, method, val, [item.image for item in val])


def features_of(
    plan: Plan, method: Method, items: Sequence[Item], images: Sequence[Image], views: int = 0
) -> FeatureSample:
    """Some of the plan's images as the method's image tower sees them."""
    return sample_features(
        method,
        images,
        [item.label for item in items],
        list(plan.phrases.values()),
        views=views,
        crop_area=plan.options["crop_area"],
        flip=plan.options["flip"],
        seed=plan.seed,
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
