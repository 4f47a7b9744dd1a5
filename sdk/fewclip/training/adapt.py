"""Images -> Classifier: the one call that ties data, backbone, method, training and calibration."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fewclip import artifact
from fewclip.classifier import TEMPLATE, Classifier, new_card, zero_shot_on
from fewclip.contract import Calibration
from fewclip.data import Item, PixelStore
from fewclip.heads import FeatureSample
from fewclip.methods import registry
from fewclip.methods.base import Method
from fewclip.methods.frozen_head import FrozenHead
from fewclip.preprocess import Image
from fewclip.training import run_lock
from fewclip.training.calibration import calibrated, measure
from fewclip.training.config import AdaptConfig
from fewclip.training.features import sample_features
from fewclip.training.loop import History, Progress, TrainingSet, train
from fewclip.training.ood import fit_ood_score
from fewclip.training.plan import Plan, describe, plan
from fewclip.training.progress import quiet_stage, stage_to_stderr, to_stderr
from fewclip.training.references import measure_references

PIXEL_BUDGET = 2 * 1024**3  # bytes of decoded training images kept in memory
VALIDATION_FILES = 1000  # at most so many are named in the card


def adapt(
    data: Any,
    *,
    method: str = "auto",
    budget: float | None = None,
    keep_best: bool = False,
    backbone: str | os.PathLike[str] = "micro",
    shots: int | Literal["all"] = 16,
    classes: Sequence[str] | Mapping[str, str] | None = None,
    template: str = TEMPLATE,
    val: str | float | os.PathLike[str] = "auto",
    epochs: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    progress: bool | Callable[[Progress], None] = True,
    checkpoint: str | os.PathLike[str] | None = None,
    stop: Callable[[], bool] | None = None,
    fixes: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Classifier:
    """Adapt CLIP to a few labelled images per class.

    Args:
        data: a folder with one sub-folder per class, or with train/ (val/, test/) of that shape;
            a CSV with `image_path,label`; {label: [images]}; or [(image, label)]. An image is a
            path, bytes, a PIL image or an RGB uint8 array.
        method: "auto" for what these images are best served by, chosen by cross-validation on the
            training images; else see `fewclip.methods()`; "dept" is "kgcoop+dept".
        budget: seconds that "auto" may take before the final fit; None for
            `selection.auto.default_budget`.
        keep_best: when "auto" is stopped (Ctrl-C, `stop`) while it chooses, take the best head on
            frozen features so far instead of raising.
        backbone: "micro", an open_clip NAME/TAG, or a folder; see `fewclip.backbones()`.
        shots: training images per class, or "all".
        classes: which labels, in which order, or {label: phrase} where a label is not what one
            would say.
        template: prompt with one `{}` for the phrase.
        val: images kept out of training for calibration, the 'unknown' threshold and the
            before/after figures: "auto" (what `shots` left over, else one in five of a class with
            8 or more), a fraction, a folder, or 0.
        epochs: instead of the method's own number.
        seed: of sampling, augmentation, batches and random starts.
        device: "auto", "cpu" or "cuda".
        precision: "fp32", "bf16" or "auto" (by the hardware).
        progress: True for a bar on stderr, False for silence, or a callable that takes a
            `fewclip.training.loop.Progress` after every step.
        checkpoint: a folder that is written after every epoch and continued from when it holds
            this very run; it is left there for the caller to delete once the model is saved.
        stop: asked before every step; True ends training with StoppedError.
        fixes: a CSV of images to leave out or relabel, as `fewclip check` suggests it; no file of
            the data is changed.
        options: fields of the method's options (`omega=4`, `dept_weight=0.5` ...), and `augment`:
            "published", "gentle" (crops that keep most of an image, no mirroring) or "none".

    Returns:
        A calibrated Classifier; its card holds data summary, settings and before/after figures.

    Raises:
        DataError, OptionError, ClassNameError, BackboneError: the input is at fault.
        CheckpointError: the checkpoint is another run's, broken, or held by a run at work.
        DivergedError: the loss is not finite; nothing is kept.
        StoppedError: stopped on request; the checkpoint, if any, can be continued.
    """
    config = AdaptConfig(
        method=method,
        budget=budget,
        keep_best=keep_best,
        backbone=backbone,
        shots=shots,
        classes=classes,
        template=template,
        val=val,
        epochs=epochs,
        seed=seed,
        device=device,
        precision=precision,
        checkpoint=checkpoint,
        fixes=fixes,
        options=options,
    )
    held = contextlib.nullcontext() if checkpoint is None else run_lock.held(Path(checkpoint))
    with held:
        report_stage = stage_to_stderr if progress is True else quiet_stage
        made = plan(data, config, report_stage=report_stage)
        if progress is True:
            describe(made)
            progress = to_stderr()
        return execute(made, progress=progress or None, stop=stop, report_stage=report_stage)


def execute(
    made: Plan,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    report_stage: Callable[[str], None] = quiet_stage,
    sample: FeatureSample | None = None,
) -> Classifier:
    """Train, calibrate and measure what `plan` laid out.

    Args:
        sample: the training images as the frozen backbone sees them, where somebody has passed
            them through it already in the views that the method asks for.
        progress, stop: as `adapt` takes them.
        report_stage: called with a few words before each part that may take long.
    """
    if made.automatic:
        from fewclip.selection.auto import execute_chosen  # it executes plans in its turn

        return execute_chosen(made, progress=progress, stop=stop, report_stage=report_stage)
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
