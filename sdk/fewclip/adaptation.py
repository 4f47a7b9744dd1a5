"""Images -> Classifier: the one call that ties data, backbone, method, training and calibration."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from fewclip.classifier import TEMPLATE, Classifier
from fewclip.selection.auto import choose_and_execute
from fewclip.system.reporting import report_nothing
from fewclip.training import run_lock
from fewclip.training.config import AdaptConfig
from fewclip.training.loop import Progress
from fewclip.training.plan import describe, make_plan
from fewclip.training.progress import Callbacks, report_to_stderr, to_stderr


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
        method: "auto" for what works best on these images, chosen by cross-validation on the
            training images; else see `fewclip.methods()`; "dept" is "kgcoop+dept".
        budget: seconds that "auto" may take before the final fit; None for
            `selection.auto.default_budget`.
        keep_best: if "auto" is stopped (Ctrl-C, `stop`) while it chooses, use the best head on
            frozen features so far instead of raising.
        backbone: "micro", an open_clip NAME/TAG, or a folder; see `fewclip.backbones()`.
        shots: training images per class, or "all".
        classes: which labels, in which order, or {label: phrase} if a label is not what one
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
        checkpoint: a folder that is written after every epoch, and resumed from if it holds this
            very run; the caller deletes it once the model is saved.
        stop: called before every step; True ends training with StoppedError.
        fixes: a CSV of images to leave out or relabel, as suggested by `fewclip check`; the data's
            own files are not changed.
        options: fields of the method's options (`omega=4`, `dept_weight=0.5` ...), and `augment`:
            "published", "gentle" (crops that keep most of an image, no mirroring) or "none".

    Returns:
        A calibrated Classifier; its card holds data summary, settings and before/after figures.

    Raises:
        DataError, OptionError, ClassNameError, BackboneError: the input is at fault.
        CheckpointError: the checkpoint is another run's, broken, or held by a run at work.
        DivergedError: the loss is not finite; nothing is kept.
        StoppedError: stopped on request; the checkpoint, if any, can be resumed.
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
        report_progress = report_to_stderr if progress is True else report_nothing
        plan = make_plan(data, config, report_progress=report_progress)
        if progress is True:
            describe(plan)
            progress = to_stderr()
        callbacks = Callbacks(progress=progress or None, stop=stop, report_progress=report_progress)
        return choose_and_execute(plan, callbacks)
