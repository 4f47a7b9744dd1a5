"""`fewclip demo`: the main job on two small sets, offline, in minutes. Only calls what users call.

"auto" tries Skip Tuning and DePT on the way, so that its own figures stand beside its choice and
nothing is trained twice. Handwritten digits are real and far from what the bundled backbone knows;
the surfaces are drawn. Nothing here is needed by the rest of fewclip.
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

from PIL import Image as PILImage

from fewclip.samples import digits, surfaces

if TYPE_CHECKING:
    from fewclip.classifier import Classifier

METHODS = ("zero-shot", "auto")
TEMPLATE = "a photo of {}."  # the phrases bring their own article
SHOTS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoSet:
    """Images that the demo writes and learns.

    Attributes:
        phrases: label -> phrase.
        draw: (label, index) -> image; another index is another image.
    """

    name: str
    phrases: Mapping[str, str]
    draw: Callable[[str, int], PILImage.Image]


SETS = (
    DemoSet(name="digits", phrases=digits.PHRASES, draw=digits.draw),
    DemoSet(name="surfaces", phrases=surfaces.PHRASES, draw=surfaces.draw),
)


def run(
    out: Path, *, train: int = 40, test: int = 60, budget: float | None = None
) -> list[dict[str, Any]]:
    """Write images, adapt to them, and show what came of it.

    Args:
        out: folder for images, models and reports; what an earlier demo left there is replaced.
        train: images per class to take shots from; those left over calibrate.
        test: images per class that no training sees.
        budget: seconds that each choice may take; None for the default.

    Returns:
        One row per set and method, as `out/results.json` has them.
    """
    start = time.perf_counter()
    print("The images: handwritten digits (real) and damaged surfaces (drawn).")
    for each in SETS:
        write_images(each, out / each.name / "images", train, test)
    rows = []
    for each in SETS:
        mine = [_adapt_and_judge(each, method, out, budget) for method in METHODS]
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


def _adapt_and_judge(each: DemoSet, method: str, out: Path, budget: float | None) -> dict[str, Any]:
    import fewclip

    print(f"\n{each.name}: {method}", flush=True)
    start = time.perf_counter()
    clf = fewclip.adapt(
        out / each.name / "images" / "train",
        method=method,
        shots=SHOTS,
        classes=each.phrases,
        template=TEMPLATE,
        budget=budget,
    )
    seconds = time.perf_counter() - start
    report = clf.evaluate(out / each.name / "images")
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
        **_out_of_distribution(clf, each, out),
        **_new_classes(clf, each, out),
        "seconds": seconds,
        "model": str(target),
        "selection": clf.card.training.get("selection", {}),
    }


def _out_of_distribution(clf: Classifier, each: DemoSet, out: Path) -> dict[str, float]:
    """Shares of images that are answered 'known': its own, and the other set's."""
    other = next(s for s in SETS if s.name != each.name)

    def known(name: str) -> float:
        images = _test_images(out, name)
        return sum(p.known is True for p in clf.predict(images, top_k=1)) / len(images)

    return {"own_known": known(each.name), "ood_known": known(other.name)}


def _new_classes(clf: Classifier, each: DemoSet, out: Path) -> dict[str, float]:
    """The other set's classes are given by name alone: instead of its own, and beside them."""
    other = next(s for s in SETS if s.name != each.name)
    wider = clf.add_classes(other.phrases)
    return {
        "new_accuracy": clf.with_classes(other.phrases)
        .evaluate(out / other.name / "images")
        .accuracy,
        "accuracy_with_added": wider.evaluate(out / each.name / "images").accuracy,
    }


def _test_images(out: Path, name: str) -> list[str]:
    return [str(p) for p in sorted((out / name / "images" / "test").glob("*/*.png"))]


def _table(each: DemoSet, rows: list[dict[str, Any]], test: int) -> str:
    n = len(each.phrases)
    lines = [
        f"{each.name}: {n} classes, {SHOTS} images of each to learn from; "
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
    return "\n".join([*lines, *_tried(rows[-1]["selection"])])


def _tried(selection: Mapping[str, Any]) -> list[str]:
    """What "auto" tried, each on training images that it had not seen."""
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
    picture = out / "surfaces" / "auto-report" / "confusion.png"
    return f"""All of it took {seconds:.0f} seconds. Models, images and reports are in {out}, for
example {picture}

Try next
  {fewclip} predict {model} {test}/cracked
  {fewclip} add-classes {model} rusty --out rusty-too
  {fewclip} info {model}
and with photos of your own, one folder per class:
  {fewclip} adapt PHOTOS --out my-model
  {fewclip} predict my-model NEW_PHOTOS
  {fewclip} export my-model --out my-model-onnx"""
