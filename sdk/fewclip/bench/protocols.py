"""The papers' protocols over methods x seeds. It decides what is trained on; `sweep` trains.

- base-to-new: learn the first half of the classes (rounded up), test both halves separately.
- cross-dataset, domain: learn all classes of one data set, test on others by class name.
- few-shot: learn all classes from 1, 2, 4, 8 and 16 images each, test on all.
- speed: what adapting costs, and how fast the result predicts.

No protocol keeps validation images, as in the published runs; nothing is chosen on test images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from fewclip.bench.datasets import load
from fewclip.bench.layouts import VARIANTS
from fewclip.bench.photos import Dataset, Half
from fewclip.bench.sweep import Job, Outcome, Sweep, accuracy, answering, with_template
from fewclip.bench.tables import Summary
from fewclip.errors import OptionError

if TYPE_CHECKING:
    from fewclip.classifier import Classifier

SEEDS = (1, 2, 3)
SHOTS = (1, 2, 4, 8, 16)
# The rows of the papers' tables, cheap ones first.
METHODS = (
    "zero-shot",
    "coop",
    "coop+dept",
    "kgcoop",
    "kgcoop+dept",
    "clip-adapter",
    "clip-adapter+dept",
    "vpt",
    "vpt+dept",
    "maple",
    "maple+dept",
    "promptsrc",
    "promptsrc+dept",
    "cocoop",
    "cocoop+dept",
    "fine-tune",
    "skip-tuning",
)
Data = str | os.PathLike[str]


def base_to_new(
    data: Data | Sequence[Data],
    *,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    shots: int | Literal["all"] = 16,
    root: Data | None = None,
    **settings: Any,
) -> Summary:
    """Accuracy on base classes, on new classes, and their harmonic mean H.

    Args:
        data: names of published data sets, or folders, CSVs or .tars; see `datasets.load`.
        methods: see `fewclip.methods()`; "zero-shot" runs once.
        seeds: of sampling and training.
        shots: training images per base class.
        root: the folder of the published data sets.
        settings: of `sweep.Sweep`: out, backbone, options, epochs, template, device, precision,
            engine, ray_address, ray_cpus, report_progress.

    Returns:
        The table; with `out` it is also written there, and finished runs are reused from there.

    Raises:
        DataError, OptionError, BackboneError: the input is at fault.
    """

    def test(job: Job, clf: Classifier) -> Outcome:
        base, new = (_half_accuracy(job, clf, half) for half in ("base", "new"))
        return {"base": base, "new": new, "h": harmonic(base, new)}

    jobs = [
        Job("base-to-new", dataset, method, seed, shots, half="base", test=test)
        for dataset in _sets(data, root)
        for method, seed in _grid(methods, seeds)
    ]
    return Sweep(**settings).run(jobs)


def few_shot(
    data: Data | Sequence[Data],
    *,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    shots: Sequence[int] = SHOTS,
    root: Data | None = None,
    **settings: Any,
) -> Summary:
    """Accuracy on all classes by the number of training images; arguments as `base_to_new`."""

    def test(job: Job, clf: Classifier) -> Outcome:
        return {"accuracy": _half_accuracy(job, clf, "all")}

    jobs = [
        Job("few-shot", dataset, method, seed, count, test=test)
        for dataset in _sets(data, root)
        for method, seed in _grid(methods, seeds)
        for count in (shots if method != "zero-shot" else (0,))
    ]
    return Sweep(**settings).run(jobs)


def cross_dataset(
    data: Data,
    *,
    targets: Sequence[Data],
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    shots: int | Literal["all"] = 16,
    root: Data | None = None,
    **settings: Any,
) -> Summary:
    """Accuracy on other data sets after learning all classes of one.

    Args:
        data: what is learned; the papers use "imagenet".
        targets: what is tested besides its own test images.

    Other arguments as `base_to_new`.
    """
    return _transfer("cross-dataset", data, targets, methods, seeds, shots, root, settings)


def domain(
    data: Data,
    *,
    targets: Sequence[Data] = VARIANTS,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    shots: int | Literal["all"] = 16,
    root: Data | None = None,
    **settings: Any,
) -> Summary:
    """`cross_dataset` to other images of the same classes; the papers use ImageNet's variants.

    A target may have only some of the classes (ImageNet-A and -R); it is tested among those.
    """
    return _transfer("domain", data, targets, methods, seeds, shots, root, settings)


def speed(
    data: Data | Sequence[Data],
    *,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (1,),
    shots: int | Literal["all"] = 16,
    root: Data | None = None,
    **settings: Any,
) -> Summary:
    """Seconds and peak memory of adapting to all classes, and images per second of prediction."""

    def test(job: Job, clf: Classifier) -> Outcome:
        return {
            "trained_parameters": sum(p.numel() for p in clf.method.trained_parameters().values()),
            "answers_per_second": answering(clf, job.dataset.tested()),
        }

    jobs = [
        Job("speed", dataset, method, seed, shots, test=test)
        for dataset in _sets(data, root)
        for method, seed in _grid(methods, seeds)
    ]
    return Sweep(**settings).run(jobs)


def harmonic(one: float, other: float) -> float:
    """The harmonic mean; 0 where either is 0."""
    return 2 * one * other / (one + other) if one > 0 and other > 0 else 0.0


def _transfer(
    protocol: str,
    data: Data,
    targets: Sequence[Data],
    methods: Sequence[str],
    seeds: Sequence[int],
    shots: int | Literal["all"],
    root: Data | None,
    settings: dict[str, Any],
) -> Summary:
    source, others = load(data, root), [load(each, root) for each in targets]
    names = [source.name, *(each.name for each in others)]
    if not others or len(set(names)) < len(names):
        raise OptionError(
            f"{protocol} needs targets that differ in name from each other and from "
            f"{source.name}; got {', '.join(names[1:]) or 'none'}"
        )

    sweep = Sweep(**settings)

    def test(job: Job, clf: Classifier) -> Outcome:
        scores = {source.name: _half_accuracy(job, clf, "all")}
        for each in others:
            phrases = _phrases_in(source, each)
            tested = with_template(clf, sweep.template_for(job, each)).with_classes(phrases)
            scores[each.name] = accuracy(tested, each.tested())
        scores["average"] = sum(scores[each.name] for each in others) / len(others)
        return scores

    jobs = [
        Job(protocol, source, method, seed, shots, targets=tuple(others), test=test)
        for method, seed in _grid(methods, seeds)
    ]
    return sweep.run(jobs)


def _phrases_in(source: Dataset, target: Dataset) -> dict[str, str]:
    """label -> phrase of a target; a label of the source means the same class only in its family.

    With DePT a class of the source keeps its column of the trained classifier; a class elsewhere
    that merely has the same name is a new class.
    """
    if set(target.classes) <= set(source.classes):
        return target.classes
    return {f"{target.name}: {label}": phrase for label, phrase in target.classes.items()}


def _half_accuracy(job: Job, clf: Classifier, half: Half) -> float:
    return accuracy(clf.with_classes(job.dataset.phrases(half)), job.dataset.tested(half))


def _grid(methods: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Methods x seeds; zero-shot learns nothing, so one seed is enough."""
    if not methods or not seeds:
        raise OptionError("a protocol needs at least one method and one seed")
    for method in methods:
        for seed in seeds if method != "zero-shot" else seeds[:1]:
            yield method, seed


def _sets(data: Data | Sequence[Data], root: Data | None) -> list[Dataset]:
    """Load every data set; their names must differ, to tell the table's rows apart."""
    many = [data] if isinstance(data, (str, os.PathLike)) else list(data)
    sets = [load(each, root) for each in many]
    names = [each.name for each in sets]
    if not names or len(set(names)) < len(names):
        raise OptionError(
            f"data sets must be one or more of different names; got {', '.join(names) or 'none'}"
        )
    return sets
