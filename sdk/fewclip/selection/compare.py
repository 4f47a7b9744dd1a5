"""Which method is best for YOUR images: cross-validation within a time budget, and one advice.

Every image is judged by models that have not seen it. `_advice.py` puts the outcome into words;
`_references.py` holds the outside references, classifiers of scikit-learn on CLIP's features.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fewclip.bench.measure import measured
from fewclip.bench.photos import Dataset, Photo, permutation
from fewclip.bench.published import PLAIN
from fewclip.bench.sweep import Job, learn
from fewclip.data import Data, Pool, read
from fewclip.errors import DataError, OptionError, StoppedError
from fewclip.selection.baselines import REFERENCES, fit_reference, require_sklearn
from fewclip.selection.recommendation import Comparison, Row, advise

if TYPE_CHECKING:
    import torch

# Cheap ones first, so that a short budget still compares something.
METHODS = (
    "zero-shot",
    "gda",
    "linear-probe",
    "kgcoop+dept",
    "skip-tuning",
    "clip-adapter+dept",
    "maple+dept",
    "promptsrc+dept",
    "fine-tune",
)
Say = Callable[[str], None]


@dataclasses.dataclass
class _Tally:
    """What is known of one method so far: right[i] is 1, 0, or -1 where image i was not judged."""

    right: npt.NDArray[np.int8]
    seconds: list[float] = dataclasses.field(default_factory=list)
    peak_mb: float = 0.0
    given_up: bool = False


def compare(
    data: Data,
    *,
    methods: Sequence[str] = METHODS,
    budget: float = 600.0,
    folds: int = 5,
    shots: int | Literal["all"] = 16,
    backbone: str = "micro",
    classes: Sequence[str] | Mapping[str, str] | None = None,
    template: str = PLAIN,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    say: Say | None = None,
) -> Comparison:
    """Compare methods on one's own images by cross-validation.

    The folds go outermost: within the budget every method is tried on the first fold before any
    goes on to the second. A test/ folder is left alone.

    Args:
        data, backbone, classes, template, seed, device, precision: as in `adapt`.
        methods: in the order in which they are tried.
        budget: seconds for everything; what does not fit is left out and said.
        folds: parts that the images are divided into; at most the images of the smallest class.
        shots: training images per class at most.
        options: {method: {option: value}}; under "" what holds for every method.
        say: takes one line per step.

    Raises:
        DataError, OptionError, BackboneError: the input is at fault.
        MissingExtraError: scikit-learn is not installed.
    """
    begin = time.monotonic()
    if not budget > 0:
        raise OptionError(f"budget must be seconds above 0, got {budget!r}")
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise OptionError(f"folds must be a whole number of at least 2, got {folds!r}")
    require_sklearn()
    pool = read(data, classes=classes)
    bench = _Bench(pool, backbone, template, shots, seed, device, precision, options or {}, methods)
    places = _folds(pool, folds, seed)
    tallies = {name: _Tally(np.full(len(places), -1, np.int8)) for name in bench.names}
    first = tallies[bench.names[0]]
    for fold in range(places.max() + 1):
        for name, tally in tallies.items():
            left = begin + budget - time.monotonic()
            # Another fold takes as long as the last. The first method always gets its first fold,
            # so that there is an answer at all.
            needed = fold == 0 and tally is first
            tally.given_up |= not needed and left < max(tally.seconds, default=0.0)
            if tally.given_up:
                continue
            held = places == fold
            try:
                bench.judge(name, tally, held, deadline=math.inf if needed else begin + budget)
            except StoppedError:
                tally.given_up = True
            _tell(say, name, tally, fold, held)
    rows = [_row(name, tally) for name, tally in tallies.items()]
    return advise(
        rows,
        folds=int(places.max()) + 1,
        images=len(places),
        seconds=time.monotonic() - begin,
        budget=budget,
        notes=_notes(pool),
    )


class _Bench:
    """Judges one method on one fold."""

    def __init__(
        self,
        pool: Pool,
        backbone: str,
        template: str,
        shots: int | Literal["all"],
        seed: int,
        device: str,
        precision: str,
        options: Mapping[str, Mapping[str, Any]],
        methods: Sequence[str],
    ) -> None:
        from fewclip.backbone import load_backbone, resolve_device
        from fewclip.classifier import check_template, zero_shot_on
        from fewclip.methods import registry
        from fewclip.training.mixed_precision import resolve_precision

        self.pool, self.shots, self.seed, self.backbone = pool, shots, seed, backbone
        self.device: torch.device = resolve_device(device)
        tower = load_backbone(backbone, self.device)
        if not methods:
            raise OptionError("no methods were named; name at least one, see `fewclip methods`")
        self.runs: dict[str, dict[str, Any]] = {}
        for method in map(registry.resolve, methods):
            given = {**options.get("", {}), **options.get(method, {})}
            self.runs[method] = {
                "options": registry.make_options(
                    method, given, registry.backbone_defaults(method, tower)
                ),
                "templates": [check_template(template)],
                "precision": resolve_precision(precision, self.device, tower.image_width),
            }
        zero_shot = zero_shot_on(tower, pool.phrases, template)
        self.features = zero_shot.embed([item.image for item in pool.train])  # (N, D)
        self.labels = np.array([item.label for item in pool.train])
        first, *others = self.runs
        self.names = [first, *REFERENCES, *others]

    def judge(self, name: str, tally: _Tally, held: npt.NDArray[np.bool_], deadline: float) -> None:
        """Learn from what is not held, judge what is."""
        items = self.pool.train
        photos = [Photo(item.image, item.label, item.content) for item in items]
        train = [p for p, out in zip(photos, held, strict=True) if not out]
        dataset = Dataset(
            name="own",
            title="the data",
            classes=self.pool.phrases,
            train=tuple(train),
            test=(),
        )
        job = Job("compare", dataset, name, self.seed, self.shots, test=lambda *_: {})
        with measured(self.device.type) as cost:
            answers = self._answers(job, held, deadline)
        tally.right[held] = answers == self.labels[held]
        tally.seconds.append(cost.seconds)
        tally.peak_mb = max(tally.peak_mb, cost.peak_mb)

    def _answers(
        self, job: Job, held: npt.NDArray[np.bool_], deadline: float
    ) -> npt.NDArray[np.int64]:
        """The class index of each held image."""
        if job.method in REFERENCES:
            index = {item.content: i for i, item in enumerate(self.pool.train)}
            known = [index[photo.key] for photo in job.dataset.sample(self.shots, self.seed)]
            model = fit_reference(job.method, self.features[known], self.labels[known])
            return np.asarray(model(self.features[held]))
        from fewclip.backbone import load_backbone

        tower = load_backbone(self.backbone, self.device)
        clf = learn(job, self.runs[job.method], tower, stop=lambda: time.monotonic() > deadline)
        images = [item.image for item, out in zip(self.pool.train, held, strict=True) if out]
        return np.asarray(clf.predict_proba(images).argmax(1))


def _folds(pool: Pool, wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """(N,) the fold of each training image; each class is spread evenly.

    Raises:
        DataError: a class has one image only.
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


def _row(name: str, tally: _Tally) -> Row:
    judged = tally.right >= 0
    return Row(
        method=name,
        right=tally.right,
        n=int(judged.sum()),
        folds=len(tally.seconds),
        seconds=float(np.mean(tally.seconds)) if tally.seconds else 0.0,
        peak_mb=tally.peak_mb,
        outside=name in REFERENCES,
        given_up=tally.given_up,
    )


def _notes(pool: Pool) -> list[str]:
    notes = list(pool.notes)
    if pool.skipped:
        notes.append(f"not used: {len(pool.skipped)} of the files")
    if pool.test:
        notes.append(f"the {len(pool.test)} images of test/ were left alone, for your last check")
    return notes


def _tell(
    say: Say | None, name: str, tally: _Tally, fold: int, held: npt.NDArray[np.bool_]
) -> None:
    if say is None:
        return
    if tally.given_up:
        say(f"fold {fold + 1}: {name} did not finish within the budget")
    else:
        say(f"fold {fold + 1}: {name} {tally.right[held].mean():.1%}, {tally.seconds[-1]:.0f} s")


# ---- the command -----------------------------------------------------------------------------


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `compare_command` reads."""
    parser.add_argument("data", help="a folder with one sub-folder per class, or a CSV")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds; default: 600")
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="M")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--shots", default="16", help="training images per class, or 'all'")
    parser.add_argument("--backbone", default="micro", help="see `fewclip backbones`")
    parser.add_argument("--template", default=PLAIN, help="prompt with one {}")
    parser.add_argument(
        "--classes", help="JSON: a list of labels, or {label: phrase}; or a file that holds it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="'auto', 'cpu' or 'cuda'")
    parser.add_argument("--precision", default="auto", help="'auto', 'fp32' or 'bf16'")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def compare_command(arguments: argparse.Namespace) -> int:
    """Print the table and the advice."""
    from fewclip.bench.command import words
    from fewclip.cli.arguments import class_names, shots

    found = compare(
        arguments.data,
        methods=words(arguments.methods),
        budget=arguments.budget,
        folds=arguments.folds,
        shots=shots(arguments.shots),
        backbone=arguments.backbone,
        classes=class_names(arguments.classes),
        template=arguments.template,
        seed=arguments.seed,
        device=arguments.device,
        precision=arguments.precision,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=2) if arguments.json else found)
    return 0
