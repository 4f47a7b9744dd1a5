"""A plan -> Classifier: trained, calibrated and measured. It chooses no method."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from fewclip import artifact
from fewclip.classifier import Classifier, new_card, zero_shot_on
from fewclip.contract import Calibration
from fewclip.data import Item, PixelStore
from fewclip.heads import FeatureSample
from fewclip.methods import registry
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
VALIDATION_FILES = 1000  # at most so many are named in the card


def execute(
    made: Plan,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    report_stage: Callable[[str], None] = quiet_stage,
    sample: FeatureSample | None = None,
) -> Classifier:
    """Train, calibrate and measure what `plan` laid out; its method has to be decided.

    Args:
        sample: the training images as the frozen backbone sees them, where somebody has passed
            them through it already in the views that the method asks for.
        progress, stop: as `fewclip.adapt` takes them.
        report_stage: called with a few words before each part that may take long.
    """
    tower, split = made.backbone, made.split
    zero_shot = zero_shot_on(tower, made.phrases, made.template)
    frozen_val, frozen_train, before = None, None, None
    if split.val:
        report_stage(f"measuring zero-shot on {len(split.val)} images")
        images = [item.image for item in split.val]
        frozen_val = features_of(made, zero_shot.method, split.val, images)
        before = measure(zero_shot, frozen_val)
    tuned = registry.build(
        made.method,
        tower,
        made.options,
        template=made.template,
        phrases=list(made.phrases.values()),
        generator=torch.Generator().manual_seed(made.seed),
    )
    history = History((), ())
    store = PixelStore(split.train, tower.preprocess, PIXEL_BUDGET)
    references = None
    if made.references and tuned.trains:
        frozen_train = features_of(made, zero_shot.method, split.train, store.images())
        references = measure_references(made, frozen_train, frozen_val)
        report_stage(references.describe())
    if tuned.trains:
        report_stage(f"preparing {len(made.phrases)} classes")
        tuned.setup(list(made.phrases.values()))
        labels = [item.label for item in split.train]
        history = train(
            tuned,
            TrainingSet(
                store.get,
                labels,
                tower.preprocess,
                made.options["crop_area"],
                made.options["flip"],
            ),
            epochs=made.options["epochs"],
            seed=made.seed,
            precision=made.precision,
            run=made.run,
            checkpoint=made.checkpoint,
            progress=progress,
            stop=stop,
        )
    if sample is None and not tuned.trains_images:
        sample = frozen_train
    if sample is None:
        report_stage(f"passing {len(split.train)} training images")
        views = made.options["views"] if isinstance(tuned, FrozenHead) else 0
        sample = features_of(made, tuned, split.train, store.images(), views)
    fitted = tuned.fit(sample, made.seed) if isinstance(tuned, FrozenHead) else None
    card = new_card(
        tuned,
        made.method,
        made.options,
        made.phrases,
        calibration=Calibration(),
        seed=made.seed,
        precision=made.precision,
        data={
            "source": made.source,
            "validation_files": _files(made),
            **split.summary(),
        },
        training={
            "run_id": made.run_id,
            "phrases": dict(made.phrases),
            "losses": list(history.losses),
            "resumed_from_epochs": list(history.resumed_from),
            "device": tower.device.type,
        },
    )
    held = sample.take(np.arange(0)) if frozen_val is None else frozen_val
    if split.val and tuned.trains_images:
        held = features_of(made, tuned, split.val, [item.image for item in split.val])
    clf = Classifier(
        tuned,
        card,
        ood_score=fit_ood_score(
            tuned,
            zero_shot.method,
            list(made.phrases.values()),
            sample,
            held if split.val else None,
        ),
        validation=[(item.image, split.classes[item.label]) for item in split.val],
    )
    return calibrated(clf, before, sample, held, fitted, references)


def features_of(
    made: Plan, method: Method, items: Sequence[Item], images: Sequence[Image], views: int = 0
) -> FeatureSample:
    """Some of the plan's images as the method's image tower sees them."""
    return sample_features(
        method,
        images,
        [item.label for item in items],
        list(made.phrases.values()),
        views=views,
        crop_area=made.options["crop_area"],
        flip=made.options["flip"],
        seed=made.seed,
    )


def _files(made: Plan) -> list[dict[str, str]]:
    """The validation images that are files: an export in another process proves itself on them."""
    root = Path(made.source or "")
    root = root.parent if root.is_file() else root
    return [
        {
            "path": os.path.relpath(item.image, root) if made.source else os.fspath(item.image),
            "label": made.split.classes[item.label],
            "sha256": artifact.sha256_file(item.image),
        }
        for item in made.split.val[:VALIDATION_FILES]
        if isinstance(item.image, (str, os.PathLike))
    ]
