"""`fewclip demo`: the main job on two small sets, offline, in three minutes.

"auto", Skip Tuning and DePT are compared on test images that no training saw. There are few images
to learn from, because Skip Tuning takes a third of a second for each. The handwritten digits are
real and far from what the bundled backbone knows; the surfaces are drawn. Nothing here is needed by
the rest of fewclip.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PILImage

from fewclip import decide
from fewclip.cli.arguments import Arguments, Parser
from fewclip.report import Report
from fewclip.samples import digits, surfaces

if TYPE_CHECKING:
    from fewclip.classifier import Classifier

# Options of `adapt`; the gentle crops are those that "auto" also tries first.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "zero-shot": {},
    "auto": {},
    "skip-tuning": {"augment": "gentle"},
    "dept": {"augment": "gentle"},
}
TEMPLATE = "a photo of {}."  # the phrases bring their own article
BUDGET = 45.0  # seconds that each choice may take; its first round takes about 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoSet:
    """A data set that the demo writes and learns.

    Attributes:
        phrases: label -> phrase.
        shots: images per class to learn from.
        draw: (label, index) -> image; each index gives a different image.
    """

    name: str
    shots: int
    phrases: Mapping[str, str]
    draw: Callable[[str, int], PILImage.Image]


SETS = (
    DemoSet(name="digits", shots=4, phrases=digits.PHRASES, draw=digits.draw),
    DemoSet(name="surfaces", shots=8, phrases=surfaces.PHRASES, draw=surfaces.draw),
)


def demo_arguments(parser: Parser) -> None:
    """Add the arguments of `demo`."""
    parser.add_argument("--out", default="fewclip-demo", help="where data and models go")


def demo(arguments: Arguments) -> int:
    """Run the demo; exit status 0."""
    run(Path(arguments.out))
    return 0


def run(
    out: Path, *, train: int = 24, test: int = 40, budget: float = BUDGET
) -> list[dict[str, Any]]:
    """Write images, adapt to them, and show the results.

    Args:
        out: folder for images, models and reports; what an earlier demo left there is replaced.
        train: images per class to take shots from; the rest calibrate.
        test: images per class that no training sees.
        budget: seconds that each choice may take.

    Returns:
        One row per set and method, as `out/results.json` has them.
    """
    start = time.perf_counter()
    print("The images: handwritten digits (real) and damaged surfaces (drawn).")
    for each in SETS:
        write_images(each, out / each.name / "images", train, test)
    rows = []
    for each in SETS:
        mine = [_adapt_and_evaluate(each, method, out, budget) for method in METHODS]
        print(f"\n{_table(each, mine, test)}\n", flush=True)
        rows += mine
    (out / "results.json").write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    print(_next_commands(out, time.perf_counter() - start))
    return rows


def write_images(each: DemoSet, folder: Path, train: int, test: int) -> None:
    """`folder`/train/LABEL/*.png and `folder`/test/LABEL/*.png; no image is in both."""
    for label in each.phrases:
        for part, indices in (("train", range(train)), ("test", range(train, train + test))):
            target = folder / part / label
            target.mkdir(parents=True, exist_ok=True)
            for index in indices:
                each.draw(label, index).save(target / f"{index:03d}.png")


def _adapt_and_evaluate(each: DemoSet, method: str, out: Path, budget: float) -> dict[str, Any]:
    import fewclip

    print(f"\n{each.name}: {method}", flush=True)
    start = time.perf_counter()
    clf = fewclip.adapt(
        out / each.name / "images" / "train",
        method=method,
        shots=each.shots,
        classes=each.phrases,
        template=TEMPLATE,
        budget=budget,
        progress=method != "zero-shot",
        **METHODS[method],
    )
    seconds = time.perf_counter() - start
    other = next(s for s in SETS if s.name != each.name)
    own, foreign = _TestImages(clf, each, out), _TestImages(clf, other, out)
    report = own.report(clf)
    print(f"{report.accuracy:.1%} of {report.n} test images are right", flush=True)
    target = out / each.name / method
    clf.save(target, overwrite=True)
    report.save(out / each.name / f"{method}-report")
    low, high = report.accuracy_interval()
    return {
        "set": each.name,
        "method": method,
        "accuracy": report.accuracy,
        "accuracy_interval": [low, high],
        "macro_f1": report.macro_f1,
        "ece": report.ece,
        "n": report.n,
        # Shares of images that are answered 'known'.
        "own_known": own.known(clf),
        "ood_known": foreign.known(clf),
        # The other set's classes are given by name alone: in place of its own, and added to them.
        "new_accuracy": foreign.report(clf.with_classes(other.phrases)).accuracy,
        "accuracy_with_added": own.report(clf.add_classes(other.phrases)).accuracy,
        "seconds": seconds,
        "model": str(target),
        "selection": clf.card.training.get("selection", {}),
    }


class _TestImages:
    """A set's test images, encoded once by a model for every class set it is asked about."""

    def __init__(self, clf: Classifier, each: DemoSet, out: Path) -> None:
        paths = sorted((out / each.name / "images" / "test").glob("*/*.png"))
        self.labels = [path.parent.name for path in paths]
        self.encoded = list(clf.encoded(paths))

    def outputs(self, clf: Classifier) -> decide.ModelOutputs:
        return decide.ModelOutputs.join([clf.outputs_of(*part) for part in self.encoded])

    def report(self, clf: Classifier) -> Report:
        itm, cat = self.outputs(clf)[:2]
        proba = decide.probabilities(itm, cat, clf.card.head, clf.card.temperature)
        truth = np.array([clf.classes.index(label) for label in self.labels])
        return Report.from_predictions(proba, truth, clf.classes)

    def known(self, clf: Classifier) -> float:
        answers = clf.answer(self.outputs(clf), top_k=1)
        return sum(answer.known is True for answer in answers) / len(answers)


def _table(each: DemoSet, rows: list[dict[str, Any]], test: int) -> str:
    n = len(each.phrases)
    lines = [
        f"{each.name}: {n} classes, {each.shots} images of each to learn from; "
        f"{n * test} test images that no training saw",
        f"{'':<14}{'accuracy':>9}  {'95 %':>16}  {'F1':>5}  {'calibration':>11}"
        f"  {'own known':>9}  {'OOD refused':>11}  {'seconds':>7}",
    ]
    for row in rows:
        low, high = row["accuracy_interval"]
        lines.append(
            f"{row['method']:<14}{row['accuracy']:>9.1%}  {f'{low:.1%} to {high:.1%}':>16}"
            f"  {row['macro_f1']:>5.3f}  {row['ece']:>11.3f}"
            f"  {row['own_known']:>9.1%}  {1 - row['ood_known']:>11.1%}"
            f"  {row['seconds']:>7.0f}"
        )
    other = next(s for s in SETS if s.name != each.name)
    m = len(other.phrases)
    lines += [
        "",
        f"new classes by name, no training: the {m} of {other.name} (by chance {1 / m:.0%} right)",
        f"{'':<14}{'right on ' + other.name:>17}  {f'right on {each.name} with all {n + m}':>29}",
    ]
    lines += [
        f"{row['method']:<14}{row['new_accuracy']:>17.1%}  {row['accuracy_with_added']:>29.1%}"
        for row in rows
    ]
    return "\n".join([*lines, *_tried(next(row["selection"] for row in rows if row["selection"]))])


def _tried(selection: Mapping[str, Any]) -> list[str]:
    """What "auto" tried, each evaluated on training images that it had not seen."""
    width = max(len(row["candidate"]) for row in selection["rows"])
    lines = [
        "",
        f"auto took {selection['chosen']}, after trying, out of fold on training images:",
        f"{'':<{width}}{'accuracy':>10}{'images':>8}{'seconds':>9}",
    ]
    for row in selection["rows"]:
        if row["images"]:
            lines.append(
                f"{row['candidate']:<{width}}{row['accuracy']:>10.1%}{row['images']:>8}"
                f"{row['seconds']:>9.1f}"
            )
    return lines


def _next_commands(out: Path, seconds: float) -> str:
    here = Path(sys.executable).with_name("fewclip")
    fewclip = shlex.quote(os.path.relpath(here) if here.exists() else "fewclip")
    model = shlex.quote(str(out / "surfaces" / "auto"))
    test = shlex.quote(str(out / "surfaces" / "images" / "test"))
    plot = out / "surfaces" / "auto-report" / "confusion.png"
    return f"""All of it took {seconds:.0f} seconds. Models, images and reports are in {out}, for
example {plot}

Try next
  {fewclip} predict {model} {test}/cracked
  {fewclip} add-classes {model} rusty --out rusty-too
  {fewclip} info {model}
and with photos of your own, one folder per class:
  {fewclip} adapt PHOTOS --out my-model
  {fewclip} predict my-model NEW_PHOTOS
  {fewclip} export my-model --out my-model-onnx"""
