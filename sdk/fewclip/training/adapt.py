"""Images -> Classifier: the one call that ties data, backbone, method, training and calibration."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fewclip import artifact, conformal, decide
from fewclip.backbone import Backbone, load_backbone, resolve_device
from fewclip.classifier import (
    TEMPLATE,
    Classifier,
    new_card,
    zero_shot_on,
)
from fewclip.contract import Calibration
from fewclip.data import split as datasets
from fewclip.errors import StoppedError
from fewclip.heads import FeatureSample, FittedHead
from fewclip.methods import registry
from fewclip.methods.base import Method
from fewclip.methods.frozen_head import FrozenHead
from fewclip.ood import OODScore, ood_parts
from fewclip.preprocess import Image
from fewclip.report import Report
from fewclip.training import checkpoint as checkpoints
from fewclip.training import run_lock
from fewclip.training.config import AUTO, AdaptConfig
from fewclip.training.features import sample_features
from fewclip.training.loop import History, Progress, TrainingSet, train
from fewclip.training.mixed_precision import check_precision, resolve_precision
from fewclip.training.progress import quiet_stage, stage_to_stderr, to_stderr

PIXEL_BUDGET = 2 * 1024**3  # bytes of decoded training images kept in memory
VALIDATION_FILES = 1000  # at most so many are named in the card


def adapt(
    data: Any,
    *,
    method: str = "auto",
    budget: float | None = None,
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
        options: fields of the method's options (`omega=4`, `dept_weight=0.5` ...).

    Returns:
        A calibrated Classifier; its card holds data summary, settings and before/after figures.

    Raises:
        DataError, OptionError, ClassNameError, BackboneError: the input is at fault.
        CheckpointError: the checkpoint is another run's, broken, or held by a run at work.
        StoppedError: stopped on request; the checkpoint, if any, can be continued.
    """
    config = AdaptConfig(
        method=method,
        budget=budget,
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides a run, before any training.

    Attributes:
        method, options: full name, and every option.
        backbone: loaded, frozen, for this run alone.
        split: which images train and which validate.
        phrases: label -> phrase.
        source: where the images came from, as it was given, when that was a place.
        automatic, budget: whether the method is still to be chosen, and in how many seconds.
        run: the run's fingerprint as plain JSON. On a CPU equal fingerprints give equal weights,
            bit for bit, on processors of the same model: the order of sums depends on the threads,
            on torch, and on the instructions there are, which therefore are part of it. On a GPU
            they give weights that are equal but for rounding, since some kernels add in the order
            in which their blocks happen to end.
    """

    method: str
    options: Mapping[str, Any]
    backbone: Backbone
    template: str
    split: datasets.Split
    phrases: Mapping[str, str]
    source: str | None
    seed: int
    precision: str
    checkpoint: Path | None
    run: Mapping[str, Any]
    automatic: bool = False
    budget: float | None = None

    @property
    def run_id(self) -> str:
        """sha256 of the fingerprint."""
        return hashlib.sha256(json.dumps(self.run, sort_keys=True).encode()).hexdigest()


def plan(
    data: Any, config: AdaptConfig, *, report_stage: Callable[[str], None] = quiet_stage
) -> Plan:
    """Read and check everything that `adapt` was given.

    Args:
        report_stage: called with a few words before each part that may take long.
    """
    # Chosen later; the closed-form head's options are the plan's until then.
    name = "gda" if config.method == AUTO else registry.resolve(config.method)
    device = resolve_device(config.device)
    check_precision(config.precision)
    registry.make_options(name, config.method_options)  # a wrong one is said before the long work
    pool = datasets.read(data, classes=config.classes, fixes=config.fixes)
    split = datasets.few_shot(pool, shots=config.shots, val=config.val, seed=config.seed)
    if config.backbone != "micro":  # which takes no time
        report_stage(f"loading {os.fspath(config.backbone)}")
    tower = load_backbone(config.backbone, device)
    precision = _precision(config, tower)
    defaults = registry.backbone_defaults(name, tower)
    chosen = registry.make_options(name, config.method_options, defaults)
    phrases = {label: split.phrases[label] for label in split.classes}
    run = {
        "method": config.method if config.method == AUTO else name,
        "options": chosen,
        "template": config.template,
        "phrases": list(phrases.items()),
        "backbone": tower.hash,
        "seed": config.seed,
        "precision": precision,
        "device": device.type,
        "images": datasets.content_hash(split.train),
        "validation": datasets.content_hash(split.val),
        **_arithmetic(device),
    }
    return Plan(
        automatic=config.method == AUTO,
        budget=config.budget,
        method=name,
        options=chosen,
        backbone=tower,
        template=config.template,
        split=split,
        phrases=phrases,
        source=os.fspath(data) if isinstance(data, (str, os.PathLike)) else None,
        seed=config.seed,
        precision=precision,
        checkpoint=None if config.checkpoint is None else Path(config.checkpoint),
        run=json.loads(json.dumps(run)),
    )


def _arithmetic(device: torch.device) -> dict[str, Any]:
    """What the order of sums, and with it the last bits of the weights, depends on."""
    named = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        return {**named, "gpu": torch.cuda.get_device_name(device)}
    return {**named, "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"}


def describe(made: Plan) -> None:
    """Say on stderr what is learned from, and in one line what looks odd about it."""
    from fewclip.check import glance

    print(made.split.describe(), file=sys.stderr, flush=True)
    if line := glance(made.split):
        print(line, file=sys.stderr, flush=True)


def execute(
    made: Plan,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    report_stage: Callable[[str], None] = quiet_stage,
) -> Classifier:
    """Train, calibrate and measure what `plan` laid out.

    Args:
        progress, stop: as `adapt` takes them.
        report_stage: called with a few words before each part that may take long.
    """
    if made.automatic:
        return _execute_chosen(made, progress, stop, report_stage)
    tower, split = made.backbone, made.split
    if split.val:
        report_stage(f"measuring zero-shot on {len(split.val)} images")
    before = _measure(zero_shot_on(tower, made.phrases, made.template), split)
    tuned = registry.build(
        made.method,
        tower,
        made.options,
        template=made.template,
        phrases=list(made.phrases.values()),
        generator=torch.Generator().manual_seed(made.seed),
    )
    history = History((), ())
    store = datasets.PixelStore(split.train, tower.preprocess, PIXEL_BUDGET)
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
    report_stage(f"passing {len(split.train)} training images")
    fitted: FittedHead | None = None
    if isinstance(tuned, FrozenHead):
        sample = features_of(made, tuned, store.images(), views=made.options["views"])
        fitted = tuned.fit(sample, made.seed)
    else:
        sample = features_of(made, tuned, store.images())
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
    parts = ood_parts(sample.features[:, 0], _first_view(sample.intermediate))
    if tuned.trains_images and len(parts) > 1:  # training drew its own images together there
        parts = parts[1:]
    ood = OODScore.fit(parts, sample.labels)
    clf = Classifier(
        tuned,
        card,
        ood_score=ood,
        validation=[(item.image, split.classes[item.label]) for item in split.val],
    )
    return _calibrated(clf, split, before, sample, fitted)


def _execute_chosen(
    made: Plan,
    progress: Callable[[Progress], None] | None,
    stop: Callable[[], bool] | None,
    report_stage: Callable[[str], None],
) -> Classifier:
    """Choose the method, then execute it; what was tried goes into the card."""
    from fewclip.selection.auto import select, with_candidate  # it executes plans in its turn

    made = dataclasses.replace(made, automatic=False)
    chosen = select(made, budget=made.budget, on_report=report_stage, stop=stop)
    if stop is not None and stop():
        raise StoppedError("stopped while the method was chosen; nothing was trained")
    final = with_candidate(made, chosen.chosen, checkpoint=None)
    clf = execute(final, progress=progress, stop=stop, report_stage=report_stage)
    training = {**clf.card.training, "run_id": made.run_id, "selection": chosen.to_dict()}
    clf.card = dataclasses.replace(clf.card, training=training)
    return clf


def features_of(
    made: Plan, method: Method, images: Sequence[Image], views: int = 0
) -> FeatureSample:
    """The training images as the method's image tower sees them."""
    return sample_features(
        method,
        images,
        [item.label for item in made.split.train],
        list(made.phrases.values()),
        views=views,
        crop_area=made.options["crop_area"],
        flip=made.options["flip"],
        seed=made.seed,
    )


def _first_view(intermediate: np.ndarray | None) -> np.ndarray | None:
    return None if intermediate is None else intermediate[:, 0]


def _calibrated(
    clf: Classifier,
    split: datasets.Split,
    before: Report | None,
    sample: FeatureSample,
    fitted: FittedHead | None,
) -> Classifier:
    """Fit temperature and threshold on images that the answers were not fitted on.

    A head on frozen features has out-of-fold answers for its training images; every other method
    has the validation images. Those also give the figures before and after.
    """
    card, ood = clf.card, clf.ood_score
    assert ood is not None
    outputs = clf.model_outputs([item.image for item in split.val])
    truth = np.array([item.label for item in split.val], np.int64)
    assert outputs.ood_score is not None
    own = [outputs.ood_score] if clf.method.trains_images else [ood.own, outputs.ood_score]
    itm, cat, labels = outputs.logits_itm, outputs.logits_cat, truth
    if fitted is not None:
        itm, labels = sample.logits_itm[fitted.images], sample.labels[fitted.images]
        cat = fitted.logits.astype(np.float32)
    calibration = decide.fit_calibration(itm, cat, labels, card.head, np.concatenate(own))
    metrics = dict(card.metrics)
    if fitted is not None and len(labels):
        proba = decide.probabilities(itm, cat, card.head, calibration.temperature)
        metrics["out_of_fold"] = _figures(Report.from_predictions(proba, labels, clf.classes))
    if before is not None:
        proba = decide.probabilities(
            outputs.logits_itm, outputs.logits_cat, card.head, calibration.temperature
        )
        after = Report.from_predictions(proba, truth, clf.classes)
        metrics |= {"before": _figures(before), "after": _figures(after)}
        if after.accuracy < before.accuracy:
            warnings.warn(
                f"{card.method} made things worse on the {len(truth)} images kept out of training: "
                f"{before.accuracy:.1%} before, {after.accuracy:.1%} after; another method, more "
                "images, or keep zero-shot",
                stacklevel=4,
            )
    # Before the temperature, which these images may just have taught: see `conformal`.
    plain = decide.probabilities(outputs.logits_itm, outputs.logits_cat, card.head)
    kind = "split"
    if not len(truth) and fitted is not None and len(labels):
        plain, truth, kind = decide.probabilities(itm, cat, card.head), labels, "cross"
    card = dataclasses.replace(
        card,
        calibration=calibration,
        metrics=metrics,
        conformal=conformal.fit(plain, truth, len(clf.classes), kind=kind, seed=card.seed),
    )
    return Classifier(clf.method, card, ood_score=ood, validation=clf.validation)


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


def _measure(clf: Classifier, split: datasets.Split) -> Report | None:
    if not split.val:
        return None
    proba = clf.predict_proba([item.image for item in split.val])
    return Report.from_predictions(proba, [item.label for item in split.val], clf.classes)


def _figures(report: Report) -> dict[str, float | int]:
    return {
        "accuracy": report.accuracy,
        "macro_f1": report.macro_f1,
        "ece": report.ece,
        "n": report.n,
    }


def _precision(config: AdaptConfig, backbone: Backbone) -> str:
    """'auto' continues in the precision that the checkpoint was begun in."""
    resolved = resolve_precision(config.precision, backbone.device, backbone.image_width)
    if config.precision == "auto" and config.checkpoint is not None:
        begun = checkpoints.read_run(Path(config.checkpoint)).get("precision")
        return str(begun or resolved)
    return resolved
