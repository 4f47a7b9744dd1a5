"""`fewclip demo`: the main job on two bundled data sets, offline, in minutes. It only uses the API.

Real handwritten digits, and drawn photos of surfaces, whole or damaged: two domains the bundled
backbone has not been made for, as a user's own images are.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Image

import fewclip
from fewclip.classifier import Classifier
from fewclip.report import Report
from fewclip.samples import digits, surfaces

TRAIN, TEST = 40, 60  # images per class; what 16 shots leave of the first validates
ADDED = ("dog", "teapot", "school bus")
METHODS = ("skip-tuning", "kgcoop+dept")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One of the demo's data sets.

    Attributes:
        phrases: label -> phrase.
        draw: (label, number) -> image.
        options: of training: neither a digit nor a scratch survives the usual small crops, and a
            mirrored digit is none.
    """

    name: str
    phrases: Mapping[str, str]
    draw: Callable[[str, int], Image]
    template: str
    options: Mapping[str, Any]


SAMPLES = (
    Sample(
        "digits",
        digits.PHRASES,
        digits.draw,
        "a photo of {}.",
        {"crop_area": 0.5, "flip": False},
    ),
    Sample("surfaces", surfaces.PHRASES, surfaces.draw, "a photo of {}.", {"crop_area": 0.5}),
)


def run(out: Path) -> None:
    """Write the images, adapt, measure, and say what came out and what to try next.

    Args:
        out: folder for images, models and reports; what stands there is replaced.
    """
    begin = time.monotonic()
    folders = {sample.name: write(sample, out / "data" / sample.name) for sample in SAMPLES}
    for sample in SAMPLES:
        other = next(folder for name, folder in folders.items() if name != sample.name)
        _show(sample, folders[sample.name], strangers=other / "test", out=out)
    first = out / f"{SAMPLES[0].name}-{METHODS[0]}"
    image = next((folders[SAMPLES[0].name] / "test").glob("*/*.png"))
    print(
        f"""
Done in {time.monotonic() - begin:.0f} s; models, reports and pictures are in {out}/.

Try next:
  fewclip predict {first} {image}
  fewclip export {first} --out {first}-onnx
  fewclip serve {first}-onnx
and with photos of your own, one sub-folder per class:
  fewclip adapt photos/ --out my-model
  fewclip app"""
    )


def write(sample: Sample, folder: Path) -> Path:
    """The sample's images as train/LABEL/*.png and test/LABEL/*.png."""
    for label in sample.phrases:
        for split, numbers in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
            place = folder / split / label
            place.mkdir(parents=True, exist_ok=True)
            for number in numbers:
                file = place / f"{number:03}.png"
                if not file.exists():
                    sample.draw(label, number).save(file)
    return folder


def _show(sample: Sample, folder: Path, *, strangers: Path, out: Path) -> None:
    print(f"\n{sample.name}: {len(sample.phrases)} classes, 16 images of each to learn from")
    before = fewclip.zero_shot(sample.phrases, template=sample.template)
    rows = [_row("zero-shot", before.evaluate(folder))]
    models = {}
    for method in METHODS:
        print(f"adapting with {method} ...", file=sys.stderr, flush=True)
        models[method] = clf = fewclip.adapt(
            folder,
            method=method,
            classes=sample.phrases,
            template=sample.template,
            progress=sys.stderr.isatty(),
            **sample.options,
        )
        model = out / f"{sample.name}-{method}"
        clf.save(model, overwrite=True)
        report = clf.evaluate(folder)
        report.save(out / f"{sample.name}-{method}-report")
        rows.append(_row(method, report))
    print("\n| method | test accuracy | 95 % interval | macro F1 | calibration error |")
    print("|---|---|---|---|---|")
    print("\n".join(rows))
    for method, clf in models.items():
        print(f"\n{method}: {_none_of_these(clf, folder / 'test', strangers)}")
        wider = clf.add_classes(ADDED).evaluate(folder)
        print(f"  with {', '.join(ADDED)} added by name, no training: {wider.accuracy:.1%}")
    print(f"  confusion matrices: {out / sample.name}-*-report/confusion.png")


def _row(name: str, report: Report) -> str:
    low, high = report.accuracy_interval()
    return (
        f"| {name} | {report.accuracy:.1%} | {low:.0%} to {high:.0%} | {report.macro_f1:.2f} | "
        f"{report.ece:.2f} |"
    )


def _none_of_these(clf: Classifier, own: Path, strangers: Path) -> str:
    """How many strangers are told as such, and how many of one's own images are not."""
    accepted, refused = (
        [p.known for p in clf.predict(sorted(folder.glob("*/*.png")))]
        for folder in (own, strangers)
    )
    return (
        f"{1 - sum(refused) / len(refused):.1%} of the {strangers.parent.name} recognised as "
        f"'none of these', {sum(accepted) / len(accepted):.1%} of the own images accepted"
    )
