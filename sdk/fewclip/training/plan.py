"""What a run is before any training: data, backbone, method and options, read and checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fewclip.backbone import Backbone, load_backbone, resolve_device, why_features_only
from fewclip.data import Pool, Split, content_hash, few_shot, read
from fewclip.methods import registry
from fewclip.methods.base import Method
from fewclip.system.reporting import ReportProgress, report_nothing
from fewclip.training import checkpoint
from fewclip.training.config import AUTO, AdaptConfig
from fewclip.training.mixed_precision import check_precision, resolve_precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that determines a run, before any training.

    Attributes:
        method, options: full name, and every option.
        backbone: loaded, frozen, for this run alone.
        split: which images train and which validate.
        phrases: label -> phrase.
        source: the path that the images came from, as given; None if they came from none.
        automatic, budget: whether the method is still to be chosen, and in how many seconds.
        references: whether zero-shot and a head on frozen features are measured beside the method.
        keep_best: a choice that is stopped ends with the best head so far instead of an error.
        run: the run's fingerprint as plain JSON. On a CPU equal fingerprints give equal weights,
            bit for bit, on processors of the same model: the order of sums depends on the threads,
            on torch, and on the CPU's instructions, which are therefore part of it. On a GPU they
            give weights that are equal up to rounding, since some kernels add in the order in
            which their blocks happen to finish. What `automatic` chooses within a time budget may
            differ from run to run; the card says what it was.
    """

    method: str
    options: Mapping[str, Any]
    backbone: Backbone
    template: str
    split: Split
    phrases: Mapping[str, str]
    source: str | None
    seed: int
    precision: str
    checkpoint: Path | None
    run: Mapping[str, Any]
    automatic: bool = False
    budget: float | None = None
    references: bool = False
    keep_best: bool = False

    @property
    def run_id(self) -> str:
        """sha256 of the fingerprint."""
        return hashlib.sha256(json.dumps(self.run, sort_keys=True).encode()).hexdigest()

    def build(self) -> Method:
        """The method before it has seen an image."""
        return registry.build(
            self.method,
            self.backbone,
            self.options,
            template=self.template,
            phrases=list(self.phrases.values()),
            generator=torch.Generator().manual_seed(self.seed),
        )


def make_plan(
    data: Any, config: AdaptConfig, *, report_progress: ReportProgress = report_nothing
) -> Plan:
    """Read and check everything that `adapt` was given.

    Args:
        data: in one of the forms that `adapt` takes, or a pool that is already read.
        report_progress: called with a few words before each part that may take long.
    """
    # Chosen later; the closed-form head's options are the plan's until then.
    name = "gda" if config.method == AUTO else registry.resolve(config.method)
    device = resolve_device(config.device)
    _check(config, name)
    already = isinstance(data, Pool)
    pool = data if already else read(data, classes=config.classes, fixes=config.fixes)
    split = few_shot(pool, shots=config.shots, val=config.val, seed=config.seed)
    backbone = _backbone(config, device, report_progress)
    defaults = registry.backbone_defaults(name, backbone)
    planned = Plan(
        automatic=config.method == AUTO,
        references=config.method != AUTO,
        keep_best=config.keep_best,
        budget=config.budget,
        method=name,
        options=registry.make_options(name, config.method_options, defaults),
        backbone=backbone,
        template=config.template,
        split=split,
        phrases={label: split.phrases[label] for label in split.classes},
        source=os.fspath(data) if isinstance(data, (str, os.PathLike)) else None,
        seed=config.seed,
        precision=_precision(config, backbone),
        checkpoint=None if config.checkpoint is None else Path(config.checkpoint),
        run={},
    )
    return dataclasses.replace(planned, run=_fingerprint(planned))


def _check(config: AdaptConfig, method: str) -> None:
    """Errors in these should surface before the long work.

    Raises:
        OptionError, BackboneError: what was given cannot be used.
    """
    check_precision(config.precision)
    registry.make_options(method, config.method_options)
    registry.check_backbone(method, os.fspath(config.backbone), why_features_only(config.backbone))


def _backbone(
    config: AdaptConfig, device: torch.device, report_progress: ReportProgress
) -> Backbone:
    if config.backbone != "micro":  # which loads in no time
        report_progress(f"loading {os.fspath(config.backbone)}")
    return load_backbone(config.backbone, device)


def _fingerprint(plan: Plan) -> Any:
    """`Plan.run`: all else in the plan that its result depends on, as plain JSON."""
    device = plan.backbone.device
    run = {
        "method": AUTO if plan.automatic else plan.method,
        "options": plan.options,
        "template": plan.template,
        "phrases": list(plan.phrases.items()),
        "backbone": plan.backbone.hash,
        "seed": plan.seed,
        "precision": plan.precision,
        "device": device.type,
        "images": content_hash(plan.split.train),
        "validation": content_hash(plan.split.val),
        **_arithmetic(device),
    }
    return json.loads(json.dumps(run))


def _arithmetic(device: torch.device) -> dict[str, Any]:
    """What the order of sums, and with it the last bits of the weights, depends on."""
    named = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        return {**named, "gpu": torch.cuda.get_device_name(device)}
    return {**named, "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"}


def describe(plan: Plan) -> None:
    """Say on stderr what a run trains on, and in one line what looks odd about it."""
    from fewclip.backbone.listing import MICRO_IS_WEAK
    from fewclip.check import glance

    print(plan.split.describe(), file=sys.stderr, flush=True)
    if plan.backbone.name == "micro":
        print(MICRO_IS_WEAK, file=sys.stderr, flush=True)
    if line := glance(plan.split):
        print(line, file=sys.stderr, flush=True)


def _precision(config: AdaptConfig, backbone: Backbone) -> str:
    """'auto' keeps the precision that the checkpoint was started in."""
    resolved = resolve_precision(config.precision, backbone.device, backbone.image_width)
    if config.precision == "auto" and config.checkpoint is not None:
        begun = checkpoint.read_run(Path(config.checkpoint)).get("precision")
        return str(begun or resolved)
    return resolved
