"""One method on one fold of your own images: what a run is, and how it is executed. No loop here.

A `FoldRuns` can be sent to another process: images given as paths must exist there too.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fewclip.bench.measure import machine, measured
from fewclip.bench.photos import Dataset, Photo, permutation
from fewclip.bench.results import Result
from fewclip.bench.sweep import Job, learn
from fewclip.data import Pool
from fewclip.errors import DataError, OptionError, StoppedError
from fewclip.selection.baselines import REFERENCES, fit_reference
from fewclip.selection.candidates import named

if TYPE_CHECKING:
    import torch

_RIGHT = "right"  # in a result's cost: (h,) 1 or 0 per held image, in the order of the pool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings shared by every method; as in `adapt`.

    Attributes:
        options: {method: {option: value}}; those under "" are for every method.
    """

    backbone: str = "micro"
    template: str
    shots: int | Literal["all"] = 16
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


class FoldRuns:
    """Evaluates one method on one fold.

    Args:
        folds: how many, each class spread evenly; at most the smallest class's images.

    Attributes:
        candidates: what is compared, by name.
        names: candidates and references, in the order in which they are tried.
        folds: how many there are.
        images: training images of the pool.

    Raises:
        OptionError, BackboneError, DataError: the input is at fault.
    """

    def __init__(self, pool: Pool, methods: Sequence[str], folds: int, settings: Settings) -> None:
        from fewclip.backbone import load_backbone, resolve_device
        from fewclip.classifier import check_template, zero_shot_on
        from fewclip.methods import registry
        from fewclip.training.mixed_precision import resolve_precision

        if not methods:
            raise OptionError("no methods were named; name at least one, see `fewclip methods`")
        self._fold = assign(pool, folds, settings.seed)
        self.folds, self.images = int(self._fold.max()) + 1, len(self._fold)
        self._pool, self._settings = pool, settings
        self._device: torch.device = resolve_device(settings.device)
        tower = load_backbone(settings.backbone, self._device)
        self._common = {
            "protocol": "compare",
            "templates": [check_template(settings.template)],
            "backbone": {"name": tower.name, "hash": tower.hash},
            "precision": resolve_precision(settings.precision, self._device, tower.image_width),
            "device": self._device.type,
            "shots": settings.shots,
            "seed": settings.seed,
            "folds": self.folds,
            "data": self._dataset(np.ones(self.images, np.bool_)).fingerprint,
        }
        self.candidates = {each.name: each for each in map(named, methods)}
        self._options: dict[str, dict[str, Any]] = {name: {} for name in REFERENCES}
        for name, one in self.candidates.items():
            asked = {**settings.options.get("", {}), **settings.options.get(one.method, {})}
            base = registry.backbone_defaults(one.method, tower)
            self._options[name] = registry.make_options(one.method, {**one.options, **asked}, base)
        zero_shot = zero_shot_on(tower, pool.phrases, settings.template)
        self._features = zero_shot.embed([item.image for item in pool.train])  # (N, D)
        self._labels = np.array([item.label for item in pool.train])
        first, *others = self.candidates
        self.names = [first, *REFERENCES, *others]

    @property
    def gpus(self) -> int:
        """The number of GPUs that one run uses."""
        return int(self._device.type == "cuda")

    def trains(self, name: str) -> bool:
        """Whether a run of it takes minutes rather than seconds."""
        return name not in REFERENCES and self.candidates[name].trains

    def held(self, fold: int) -> npt.NDArray[np.bool_]:
        """(N,) the images that are kept out of training."""
        return np.asarray(self._fold == fold)

    def right(self, result: Result) -> npt.NDArray[np.int8]:
        """(h,) 1 or 0 for each held image."""
        return np.array(result.cost[_RIGHT], np.int8)

    def describe(self, name: str, fold: int) -> dict[str, Any]:
        """The run as plain JSON: equal descriptions are the same run."""
        from fewclip import __version__

        method = name if name in REFERENCES else self.candidates[name].method
        own = {"method": method, "options": self._options[name], "fold": fold}
        return {**self._common, **own, "fewclip": __version__}

    def execute(self, name: str, fold: int, seconds: float = math.inf) -> Result | None:
        """Train on what is not held out, evaluate what is; None if `seconds` ran out first."""
        deadline = time.monotonic() + seconds
        held = self.held(fold)
        job = Job(
            "compare",
            self._dataset(~held),
            name if name in REFERENCES else self.candidates[name].method,
            self._settings.seed,
            self._settings.shots,
            test=lambda *_: {},
        )
        try:
            with measured(self._device.type) as cost:
                answers = self._answers(name, job, held, deadline)
        except StoppedError:
            return None
        right = (answers == self._labels[held]).astype(int)
        return Result(
            run=self.describe(name, fold),
            scores={"accuracy": float(right.mean())},
            cost={
                "seconds": cost.seconds,
                "peak_mb": cost.peak_mb,
                "memory": cost.memory,
                "machine": machine(self._device.type),
                _RIGHT: right.tolist(),
            },
        )

    def _dataset(self, kept: npt.NDArray[np.bool_]) -> Dataset:
        photos = [Photo(item.image, item.label, item.content) for item in self._pool.train]
        train = tuple(photo for photo, keep in zip(photos, kept, strict=True) if keep)
        return Dataset(
            name="own", title="the data", classes=self._pool.phrases, train=train, test=()
        )

    def _answers(
        self, name: str, job: Job, held: npt.NDArray[np.bool_], deadline: float
    ) -> npt.NDArray[np.int64]:
        """The class index of each held image."""
        if name in REFERENCES:
            index = {item.content: i for i, item in enumerate(self._pool.train)}
            known = [index[photo.key] for photo in job.dataset.sample(job.shots, job.seed)]
            model = fit_reference(name, self._features[known], self._labels[known])
            return np.asarray(model(self._features[held]))
        from fewclip.backbone import load_backbone

        tower = load_backbone(self._settings.backbone, self._device)
        run = {**self._common, "options": self._options[name]}
        clf = learn(job, run, tower, stop=lambda: time.monotonic() > deadline)
        images = [item.image for item, out in zip(self._pool.train, held, strict=True) if out]
        return np.asarray(clf.predict_proba(images).argmax(1))


def assign(pool: Pool, wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """(N,) the fold of each training image; each class is spread evenly.

    Raises:
        DataError: a class has only one image.
    """
    labels = np.array([item.label for item in pool.train])
    counts = np.bincount(labels, minlength=len(pool.classes))
    if counts.min() < 2:
        short = pool.classes[int(counts.argmin())]
        raise DataError(
            f"class {short!r} has one image, and cross-validation needs two of each class: one to "
            "learn from, one to judge; add others"
        )
    folds = min(wanted, int(counts.min()))
    places = np.zeros(len(labels), np.int64)
    for index, label in enumerate(pool.classes):
        own = np.flatnonzero(labels == index)
        places[own[permutation(label, seed, len(own))]] = np.arange(len(own)) % folds
    return places
