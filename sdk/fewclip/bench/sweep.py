"""Runs jobs locally or on Ray, stores results, and skips stored ones. It knows no protocol."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fewclip.bench import published
from fewclip.bench.measure import machine, measured
from fewclip.bench.photos import Dataset, Half, Photo
from fewclip.bench.results import Result, Store
from fewclip.bench.tables import Summary, summarise
from fewclip.errors import DataError, OptionError
from fewclip.system.reporting import ReportProgress, report_nothing

if TYPE_CHECKING:
    from fewclip.backbone import Backbone
    from fewclip.classifier import Classifier
    from fewclip.training import Plan

Outcome = dict[str, float]
ZERO_SHOT = "zero-shot"


@dataclasses.dataclass(frozen=True)
class Job:
    """One adaptation and the test run on it.

    Attributes:
        half: which classes are learned.
        targets: other data sets that `test` uses.
        test: (job, classifier) -> scores.
    """

    protocol: str
    dataset: Dataset
    method: str
    seed: int
    shots: int | Literal["all"]
    half: Half = "all"
    targets: tuple[Dataset, ...] = ()
    test: Callable[[Job, Any], Outcome] = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """How jobs are run.

    Attributes:
        out: folder of results and tables; None keeps nothing.
        backbone: as in `adapt`.
        template: instead of the published ones.
        options: {method: {option: value}}; those under "" apply to every method.
        epochs: instead of each method's own.
        device, precision: as in `adapt`.
        report_progress: takes one line per run.
        engine: "local", one run after another; or "ray", several at once.
        ray_address: of a running cluster; None starts Ray on this machine.
        ray_cpus: CPUs that each run declares, and its threads.
    """

    out: str | os.PathLike[str] | None = None
    backbone: str | os.PathLike[str] = "micro"
    template: str | None = None
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    epochs: int | None = None
    device: str = "auto"
    precision: str = "auto"
    report_progress: ReportProgress = report_nothing
    engine: str = "local"
    ray_address: str | None = None
    ray_cpus: float = 1.0

    def run(self, jobs: Sequence[Job]) -> Summary:
        """Run every job once, in order, except those whose results are stored already."""
        descriptions = self._describe_all(jobs)  # wrong options are refused before the long work
        store = None if self.out is None else Store(self.out)
        found: dict[int, Result] = {}
        todo: list[tuple[int, Job, dict[str, Any]]] = []
        for index, (job, run) in enumerate(zip(jobs, descriptions, strict=True)):
            run["data"] = [each.fingerprint for each in (job.dataset, *job.targets)]
            result = None if store is None else store.find(run)
            if result is None:
                todo.append((index, job, run))
            else:
                found[index] = result
                line = f"[{len(found)}/{len(jobs)}] {_line(result)}, kept from before"
                self.report_progress(line)
        for index, result in self._executed(todo):
            if store is not None:
                store.add(result)
            found[index] = result
            self.report_progress(f"[{len(found)}/{len(jobs)}] {_line(result)}")
        results = [found[index] for index in range(len(jobs))]
        notes = dict.fromkeys(note for job in jobs for note in job.dataset.notes)
        summary = summarise(results, notes=tuple(notes))
        if self.out is not None:
            summary.save(self.out)
        return summary

    def _executed(
        self, todo: Sequence[tuple[int, Job, dict[str, Any]]]
    ) -> Iterator[tuple[int, Result]]:
        """(index of the job, its result), as they finish."""
        if self.engine not in ("local", "ray"):
            raise OptionError(f"unknown engine {self.engine!r}; use local or ray")
        if self.engine == "local":
            yield from ((index, self.execute(job, run)) for index, job, run in todo)
        elif todo:
            from fewclip.bench.ray_runs import completed

            # A closure may not pickle.
            plain = dataclasses.replace(self, report_progress=report_nothing)
            calls = completed(
                plain.run_one,
                todo,
                cpus=self.ray_cpus,
                gpus=lambda _index, _job, run: int(run["device"] == "cuda"),
                address=self.ray_address,
            )
            yield from ((index, result) for (index, _, _), result in calls)

    def run_one(self, _index: int, job: Job, run: Mapping[str, Any]) -> Result:
        """One call for `completed`."""
        return self.execute(job, run)

    def _describe_all(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        tower = self._load()  # released again: each job loads its own
        return [self._describe(job, tower) for job in jobs]

    def _load(self) -> Backbone:
        from fewclip.backbone import load_backbone, resolve_device

        return load_backbone(self.backbone, resolve_device(self.device))

    def _describe(self, job: Job, tower: Backbone) -> dict[str, Any]:
        """The run as plain JSON: equal descriptions are the same run."""
        from fewclip import __version__
        from fewclip.training.mixed_precision import resolve_precision

        trains = job.method != ZERO_SHOT
        return {
            "protocol": job.protocol,
            "dataset": job.dataset.name,
            "targets": [each.name for each in job.targets],
            "method": job.method,
            "options": self._options(job, tower),
            "templates": [self.template_for(job, each) for each in (job.dataset, *job.targets)],
            "backbone": {"name": tower.name, "hash": tower.hash},
            "half": job.half,
            "shots": job.shots if trains else 0,
            "seed": job.seed if trains else 0,
            "device": tower.device.type,
            "precision": resolve_precision(self.precision, tower.device, tower.image_width),
            "fewclip": __version__,
        }

    def template_for(self, job: Job, dataset: Dataset) -> str:
        """The template given, else the published one."""
        return self.template or published.template(job.method, dataset.name)

    def _options(self, job: Job, tower: Backbone) -> dict[str, Any]:
        """Given options override those measured for this backbone, and these the published ones.
        The augmentation is always the papers', whatever suits the backbone."""
        from fewclip.methods import registry
        from fewclip.preprocess import AUGMENTATIONS

        measured_for = registry.backbone_defaults(job.method, tower)
        own = {k: v for k, v in measured_for.items() if k not in AUGMENTATIONS["published"]}
        base = {**published.settings(job.protocol, job.method, job.dataset.name), **own}
        given = {**self.options.get("", {}), **self.options.get(job.method, {})}
        if self.epochs is not None and job.method != ZERO_SHOT:
            given["epochs"] = self.epochs
        chosen = registry.make_options(job.method, given, base)
        layout = job.dataset.layout
        if layout and layout.quarter and job.method == "skip-tuning" and "epochs" not in given:
            chosen["epochs"] = max(1, chosen["epochs"] // 4)
        return chosen

    def execute(self, job: Job, run: Mapping[str, Any]) -> Result:
        """Run one job in this process; nothing is stored."""
        with measured(run["device"]) as cost:
            clf = learn(job, run, self._load())
        begin = time.perf_counter()
        scores = job.test(job, clf)
        return Result(
            run=run,
            scores=scores,
            cost={
                "seconds": cost.seconds,
                "test_seconds": time.perf_counter() - begin,
                "peak_mb": cost.peak_mb,
                "memory": cost.memory,
                "machine": machine(run["device"]),
                "losses": clf.card.training.get("losses", []),
            },
        )


def learn(job: Job, run: Mapping[str, Any], tower: Backbone) -> Classifier:
    """Adapt to a sample of the job's training images; none is held out for validation.

    Args:
        run: "options" (all of them), "templates" (the first counts) and "precision" are read.
        tower: loaded for this job alone.
    """
    from fewclip.classifier import zero_shot_on
    from fewclip.system.blas import one_blas_thread
    from fewclip.training import execute

    if job.method == ZERO_SHOT:
        return zero_shot_on(tower, job.dataset.phrases(job.half), run["templates"][0])
    return one_blas_thread(execute)(_plan(job, run, tower))


def _plan(job: Job, run: Mapping[str, Any], tower: Backbone) -> Plan:
    from fewclip.data import Item, Split
    from fewclip.training import Plan

    phrases = job.dataset.phrases(job.half)
    photos = job.dataset.sample(job.shots, job.seed, job.half)
    empty = set(range(len(phrases))) - {photo.label for photo in photos}
    if empty:
        label = list(phrases)[min(empty)]
        raise DataError(f"{job.dataset.title} has no training image of class {label!r}; add some")
    split = Split(
        train=[Item(photo.image, photo.label, photo.key) for photo in photos],
        val=[],
        unused=0,
        classes=tuple(phrases),
        phrases=phrases,
        skipped=[],
        notes=[],
        shots=job.shots,
        seed=job.seed,
    )
    return Plan(
        method=job.method,
        options=run["options"],
        backbone=tower,
        template=run["templates"][0],
        split=split,
        phrases=phrases,
        source=None,
        seed=job.seed,
        precision=run["precision"],
        checkpoint=None,
        run=run,
    )


def accuracy(clf: Classifier, photos: Sequence[Photo]) -> float:
    """Share of photos classified correctly; their labels index the classifier's classes."""
    proba = clf.predict_proba([photo.image for photo in photos])
    return float(np.mean(proba.argmax(1) == [photo.label for photo in photos]))


def answering(clf: Classifier, photos: Sequence[Photo], most: int = 256) -> float:
    """Images per second of `predict_proba`, decoding included, after a warm-up."""
    images = [photo.image for photo in photos[:most]]
    clf.predict_proba(images)
    begin = time.perf_counter()
    clf.predict_proba(images)
    return len(images) / (time.perf_counter() - begin)


def with_template(clf: Classifier, template: str) -> Classifier:
    """The same weights under another template, for methods whose prompts are a template.

    The method is changed in place: the classifier it came from keeps its class features, and must
    not be given new classes afterwards.
    """
    from fewclip.classifier import Classifier
    from fewclip.methods.base import Method

    for part in clf.method.modules():
        if isinstance(part, Method):
            part.template = template
    return Classifier(clf.method, dataclasses.replace(clf.card, template=template))


def _line(result: Result) -> str:
    """One run as a line of a log."""
    run = result.run
    scores = ", ".join(
        f"{name} {value:.1%}" if 0 <= value <= 1 else f"{name} {value:.0f}"
        for name, value in result.scores.items()
    )
    where = f"{run['dataset']}, {run['shots']} shots, seed {run['seed']}"
    return f"{run['method']} ({where}): {scores}; {result.cost['seconds']:.0f} s"
