"""Evaluates candidates on training images that are held out in folds. It chooses and drops none.

Heads on frozen features are evaluated on all folds at once, after one pass over the images; what
trains is evaluated on one fold at a time.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from fewclip import decide
from fewclip.backbone import load_backbone
from fewclip.bench.measure import Cost, measured
from fewclip.classifier import Classifier
from fewclip.errors import StoppedError
from fewclip.heads import FeatureSample, FoldOutputs, fit_mixture, log_loss
from fewclip.heads.linear import AnyFloats, Ints
from fewclip.methods import registry
from fewclip.methods.base import Method
from fewclip.methods.frozen_head import FrozenHead
from fewclip.methods.tuned_tower import TunedTower
from fewclip.selection.baselines import SVM, fit_reference
from fewclip.selection.candidates import HEAD_OPTIONS, ZERO_SHOT, Candidate
from fewclip.selection.evaluated import Evaluated, Run
from fewclip.training import Plan, execute
from fewclip.training.calibration import outputs_for
from fewclip.training.cross_fit import FOLDS, divide, fold_outputs
from fewclip.training.ood import parts_of
from fewclip.training.progress import Callbacks
from fewclip.training.tuning import features_of


class CrossValidation:
    """Folds of a plan's training images.

    It can be sent to another process; images and a backbone given as paths must exist there too.

    Args:
        folds: how many; at most the images of the largest class, so that none is empty.

    Attributes:
        labels: (n,) class of each image.
        fold: (n,) which fold holds it out; -1 for the only image of a class, which never is.
        folds: how many there are.
    """

    def __init__(self, plan: Plan, folds: int = FOLDS) -> None:
        self.plan = plan
        self.labels: Ints = np.array([item.label for item in plan.split.train], np.int64)
        self.fold: Ints = divide(self.labels, plan.seed, folds)
        self.folds = int(self.fold.max()) + 1

    def __getstate__(self) -> dict[str, Any]:
        """Without the backbone: each process loads it for itself."""
        tower = self.plan.backbone
        return {**vars(self), "plan": {**vars(self.plan), "backbone": (tower.name, tower.device)}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        plan = state["plan"]
        vars(self).update(
            state, plan=Plan(**{**plan, "backbone": load_backbone(*plan["backbone"])})
        )

    @property
    def device(self) -> str:
        """Its type, as `measured` takes it."""
        return self.plan.backbone.device.type

    def empty_rows(self, candidates: Sequence[Candidate]) -> list[Evaluated]:
        """A row for each candidate, without results yet."""
        nothing = np.full(len(self.labels), np.nan)
        return [Evaluated(each, nothing.copy(), nothing.copy()) for each in candidates]

    def held(self, k: int | None) -> Ints:
        """(h,) indices of the images that fold k holds out; None: that any fold does."""
        return np.flatnonzero(self.fold >= 0 if k is None else self.fold == k)

    def part(self, candidate: Candidate, train: Ints) -> Plan:
        """The candidate on some of the images, without validation images or a checkpoint."""
        items = [self.plan.split.train[i] for i in train]
        split = dataclasses.replace(self.plan.split, train=items, val=[])
        return with_candidate(self.plan, candidate, split=split, checkpoint=None)

    def evaluate_heads(
        self, candidates: Sequence[Candidate]
    ) -> Iterator[tuple[Run, FeatureSample]]:
        """Each head on all folds, and the features it was fitted on.

        Those that ask for the same views share one pass over the images. Its cost is part of each
        one's, as if it were evaluated alone.
        """
        plans = [with_candidate(self.plan, ZERO_SHOT if c.outside else c) for c in candidates]
        heads = [plan.build() for plan in plans]
        fitted = [p for p, h in zip(plans, heads, strict=True) if isinstance(h, FrozenHead)]
        passes: dict[tuple[Any, ...], tuple[FeatureSample, Cost]] = {}
        for candidate, plan, head in zip(candidates, plans, heads, strict=True):
            # What fits no head reads the plain view only, which every pass has.
            viewed = plan if isinstance(head, FrozenHead) else (fitted or plans)[0]
            views = tuple(viewed.options[name] for name in ("views", "crop_area", "flip"))
            if views not in passes:
                passes[views] = self._pass(viewed, head)
            sample, pass_cost = passes[views]
            with measured(self.device) as cost:
                run = self._svm_run(sample) if candidate.outside else self._head_run(head, sample)
            total = Cost(
                pass_cost.seconds + cost.seconds, max(pass_cost.peak_mb, cost.peak_mb), cost.memory
            )
            yield dataclasses.replace(run, cost=total), sample

    def evaluate_trained(
        self,
        group: Sequence[Candidate],
        k: int,
        seconds: float = math.inf,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Run] | None:
        """Fold k for candidates that share one training.

        Args:
            group: the first is trained; the others make use of its towers.
            seconds: that the training may take.
            stop: polled while it trains.

        Returns:
            A run for each; None if `seconds` ran out.

        Raises:
            StoppedError: `stop` returned True, or Ctrl-C was pressed.
        """
        deadline = time.monotonic() + seconds
        first = tower_of(self.plan, group[0])
        plan = self.part(first, np.flatnonzero(self.fold != k))
        try:
            with measured(self.device) as cost:
                clf = execute(plan, Callbacks(stop=lambda: stop() or time.monotonic() > deadline))
                runs = [self._trained_run(clf, first, each, k) for each in group]
        except StoppedError:
            if stop() or time.monotonic() <= deadline:  # `stop`, or Ctrl-C
                raise
            return None
        return [dataclasses.replace(run, cost=cost) for run in runs]

    def _trained_run(self, clf: Classifier, trained: Candidate, wanted: Candidate, k: int) -> Run:
        """Fold k for a candidate that is `trained` or shares its training; `clf` stays as it is."""
        if wanted.tower != wanted.method:
            found = self._tuned_head(clf, wanted, k)
        elif wanted == trained:
            found = self._answers(clf, k)
        else:
            pretrained = dict(self.plan.backbone.clip.named_parameters())
            found = self._answers(_interpolated(clf, wanted, pretrained), k)
        return Run.of_fold(found)

    def _answers(self, clf: Classifier, k: int) -> FoldOutputs:
        """A tuned model's log-probabilities for fold k, before any temperature."""
        held = self.held(k)
        items = [self.plan.split.train[i] for i in held]
        sample = features_of(self.plan, clf.method, items)
        outputs = outputs_for(clf, sample)
        answers = decide.log_probabilities(outputs.logits_itm, outputs.logits_cat, clf.card.head)
        terms = {} if clf.ood_score is None else clf.ood_score.terms(parts_of(sample))
        return FoldOutputs(held, self.labels[held], answers.astype(np.float32), [], terms)

    def _tuned_head(self, clf: Classifier, candidate: Candidate, k: int) -> FoldOutputs:
        """Fold k for a head on the features of tuned towers."""
        plan = dataclasses.replace(
            self.plan,
            method=candidate.method,
            options=options_of(self.plan, candidate),
            backbone=clf.backbone,
        )
        kept = np.flatnonzero(self.fold != k)
        return fold_outputs(plan, plan.build(), kept, self.held(k), clf.ood_score)

    def _pass(self, plan: Plan, method: Method) -> tuple[FeatureSample, Cost]:
        """Pass every image through the frozen backbone once."""
        with measured(self.device) as cost:
            sample = features_of(plan, method, plan.split.train, views=plan.options["views"])
        return sample, cost

    def _svm_run(self, sample: FeatureSample) -> Run:
        """All folds for scikit-learn's SVM, which gives no probabilities and so no loss."""
        held, right = self.held(None), np.full(len(self.labels), False)
        features = sample.features / np.linalg.norm(sample.features, axis=1, keepdims=True)
        for k in range(self.folds):
            out, kept = self.held(k), np.flatnonzero(self.fold != k)
            model = fit_reference(SVM, features[kept], self.labels[kept])
            right[out] = model(features[out]) == self.labels[out]
        return Run(held, right[held], np.full(len(held), np.nan))

    def _head_run(self, head: Method, sample: FeatureSample) -> Run:
        """All folds for a head on frozen features, or for zero-shot."""
        held = self.held(None)
        if isinstance(head, FrozenHead):
            # Its own folds may be more than those of what trains; then it would learn from more
            # images, and look better for that alone.
            logits = head.fit(sample, self.plan.seed, self.fold).logits_out_of_fold()
        else:
            logits = sample.logits_itm[held].astype(np.float64)
        return self._run(held, logits)

    def _run(self, images: Ints, logits: AnyFloats) -> Run:
        """The results of (h, M) logits, the loss at the temperature that suits them best."""
        labels = self.labels[images]
        scaled = fit_mixture(logits, [], labels).logits(logits, [])
        return Run(images, scaled.argmax(1) == labels, log_loss(scaled, labels))


def options_of(plan: Plan, candidate: Candidate) -> dict[str, Any]:
    """Every option of the candidate, on the plan's backbone."""
    defaults = registry.backbone_defaults(candidate.method, plan.backbone)
    return registry.make_options(candidate.method, candidate.options, defaults)


def tower_of(plan: Plan, candidate: Candidate) -> Candidate:
    """The candidate that tunes this one's towers, itself unless this one adds a head afterwards.

    It has every option, because the head's method may have other crops by default than its own.
    """
    if candidate.tower == candidate.method:
        return candidate
    own = {k: v for k, v in options_of(plan, candidate).items() if k not in HEAD_OPTIONS}
    return dataclasses.replace(candidate, method=candidate.tower, options=own)


def with_candidate(plan: Plan, candidate: Candidate, **changes: Any) -> Plan:
    """The plan with the candidate's method; one that trains has a backbone of its own."""
    options = options_of(plan, candidate)
    run = {**plan.run, "method": candidate.method, "options": options}
    return dataclasses.replace(
        plan,
        method=candidate.method,
        options=options,
        backbone=copy.deepcopy(plan.backbone) if candidate.trains else plan.backbone,
        run=json.loads(json.dumps(run)),
        **changes,
    )


def _interpolated(
    clf: Classifier, candidate: Candidate, pretrained: dict[str, torch.nn.Parameter]
) -> Classifier:
    """The classifier with some of the change that training made; `clf` stays as it is."""
    method = copy.deepcopy(clf.method)
    assert isinstance(method, TunedTower)
    method.interpolate(pretrained, candidate.options["interpolation"])
    return Classifier(method, clf.card)
