"""What `check` finds, and what taking its suggestions is worth. Prints Markdown tables.

    python -m benchmarks.check [DATA] [--seeds 1 2 3] [--auto SECONDS]

Wrong labels: 5, 10 and 20 % of the training photos of CIFAR-10 and signs (64 a class) get another
class at random. Shown are precision and recall of the listed labels, and the accuracy of `gda` on
test photos, which took no part in any choice, with those labels and with the suggestions taken;
with --auto that of "auto", given this many seconds, when a user takes the suggestions. Copies: 200
training photos, each with a copy that was saved again, resized, cropped or mirrored. Clean sets:
what is reported where nothing was changed.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageOps

import fewclip
from benchmarks.own_data import Images, Task, read_task
from fewclip.check.duplicates import near_duplicates
from fewclip.check.labels import doubt_labels, tower_features, wrong_labels
from fewclip.check.photos import Photo, measure
from fewclip.heads import fit_gda
from fewclip.images import load_image

RATES = (0.05, 0.1, 0.2)
COPIES = 200
Ints = npt.NDArray[np.int64]


def photo(image: PILImage.Image, name: str, label: str) -> Photo:
    content = str(hash(image.tobytes()))
    return measure(image, image, source=name, label=label, split="train", content=content)


# ---- wrong labels --------------------------------------------------------------------------------


def flipped(labels: Ints, classes: int, rate: float, rng: np.random.Generator) -> Ints:
    """The labels with a share of them changed to another class."""
    wrong = labels.copy()
    some = rng.choice(len(labels), round(rate * len(labels)), replace=False)
    wrong[some] = (labels[some] + rng.integers(1, classes, len(some))) % classes
    return wrong


def label_rows(task: str, train: Images, test: Images, seeds: list[int]) -> None:
    """One Markdown row for each rate, means of the seeds."""
    names = sorted(train)
    images = [load_image(file) for name in names for file in train[name]]
    truth = np.array([i for i, name in enumerate(names) for _ in train[name]])
    answer = np.array([i for i, name in enumerate(names) for _ in test[name]])
    backbone = fewclip.zero_shot(names, device="cpu").backbone
    features = tower_features(backbone, images)
    held = tower_features(backbone, [file for name in names for file in test[name]])

    def accuracy(kept: Ints, labels: Ints) -> float:
        head = fit_gda(features[kept], labels[kept], kept, len(names))
        return float((head(held).argmax(1) == answer).mean())

    every = np.arange(len(truth))
    for rate in RATES:
        rows = []
        for seed in seeds:
            given = flipped(truth, len(names), rate, np.random.default_rng(seed))
            named = zip(images, given, strict=True)
            photos = [photo(image, str(i), names[y]) for i, (image, y) in enumerate(named)]
            noise = doubt_labels(features, given, seed)
            assert noise is not None
            issues = list(wrong_labels(photos, features, noise, given, names))
            listed = np.array([int(issue.source) for issue in issues], np.int64)
            right = given[listed] != truth[listed]
            after = given.copy()
            for issue in issues:
                if issue.action == "relabel":
                    after[int(issue.source)] = names.index(issue.new_label)
            removed = [int(issue.source) for issue in issues if issue.action == "remove"]
            wrong = int((given != truth).sum())
            rows.append(
                (
                    len(listed),
                    right.mean() if len(right) else np.nan,
                    right.sum() / wrong,
                    accuracy(every, given),
                    accuracy(every, after),
                    accuracy(np.setdiff1d(every, removed), after),
                    accuracy(np.setdiff1d(every, listed), given),
                    accuracy(np.flatnonzero(given == truth), truth),
                )
            )
        mean = np.nanmean(rows, axis=0)
        shares = " | ".join(f"{100 * x:.1f}" for x in mean[1:])
        print(f"| {task} | {rate:.0%} | {mean[0]:.0f} | {shares} |", flush=True)


def auto_rows(task: Task, name: str, seed: int, budget: float) -> None:
    """One Markdown row for each rate: the accuracy of `auto` before and after `--fixes`."""
    labels = list(task.phrases)
    images = [image for label in labels for image in task.train[label]]
    truth = np.array([i for i, label in enumerate(labels) for _ in task.train[label]])

    def accuracy(given: Ints, fixes: Path | None = None) -> str:
        clf = fewclip.adapt(
            by_label(images, given, labels),
            classes=task.phrases,
            shots="all",
            val=0,
            budget=budget,
            fixes=fixes,
            progress=False,
        )
        return f"{100 * task.report(clf).accuracy:.1f} ({clf.card.training['selection']['chosen']})"

    for rate in RATES:
        given = flipped(truth, len(labels), rate, np.random.default_rng(seed))
        with tempfile.TemporaryDirectory() as folder:
            fewclip.check(by_label(images, given, labels)).save(folder)
            after = accuracy(given, Path(folder) / "fixes.csv")
        before, best = accuracy(given), accuracy(truth)
        print(f"| {name} | {rate:.0%} | {before} | {after} | {best} |", flush=True)


def by_label(images: list[Any], given: Ints, labels: list[str]) -> dict[str, list[Any]]:
    """Images grouped by their given labels."""
    return {
        label: [image for image, y in zip(images, given, strict=True) if y == i]
        for i, label in enumerate(labels)
    }


# ---- copies --------------------------------------------------------------------------------------


def saved_again(image: PILImage.Image, rng: np.random.Generator) -> PILImage.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(60, 91)))
    return PILImage.open(buffer).convert("RGB")


def resized(image: PILImage.Image, rng: np.random.Generator) -> PILImage.Image:
    side = round(image.width * rng.uniform(0.6, 1.6))
    return image.resize((side, side), PILImage.Resampling.BICUBIC)


def cropped(image: PILImage.Image, rng: np.random.Generator) -> PILImage.Image:
    side = round(image.width * rng.uniform(0.75, 0.95))
    left, top = rng.integers(0, image.width - side + 1, 2)
    return image.crop((left, top, left + side, top + side))


def mirrored(image: PILImage.Image, rng: np.random.Generator) -> PILImage.Image:
    return ImageOps.mirror(image)


CHANGES: Mapping[str, Callable[[PILImage.Image, np.random.Generator], PILImage.Image]] = {
    "saved again": saved_again,
    "resized": resized,
    "cropped": cropped,
    "mirrored": mirrored,
}


def copy_rows(task: str, train: Images) -> None:
    """One Markdown row for each change."""
    images = [load_image(file) for label in sorted(train) for file in train[label]]
    for name, change in CHANGES.items():
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(images), COPIES, replace=False)
        photos = [photo(image, str(i), "a") for i, image in enumerate(images)]
        photos += [photo(change(images[i], rng), f"copy {i}", "a") for i in chosen]
        injected = {(int(i), len(images) + k) for k, i in enumerate(chosen)}
        found = {(pair.first, pair.second) for pair in near_duplicates(photos)}
        hits = len(found & injected)
        precision = hits / len(found) if found else float("nan")
        print(f"| {task} | {name} | {hits / COPIES:.1%} | {precision:.1%} |", flush=True)


# ---- nothing wrong -------------------------------------------------------------------------------


def clean_row(task: str, train: Images) -> None:
    report: Any = fewclip.check({label: list(images) for label, images in train.items()})
    total = sum(len(images) for images in train.values())
    print(f"| {task} | {total} | {len(report.issues)} | {report.summary()} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--auto", type=float, metavar="SECONDS", help="only the table of `auto`")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        tasks = {
            task: read_task(given.data, Path(name), task)
            for task in ("cifar-10", "signs", "digits", "surfaces")
        }
        if given.auto:
            print("| task | wrong | before | after | all right |\n|---|---|---|---|---|")
            for task in ("cifar-10", "signs"):
                auto_rows(Task(*tasks[task]), task, given.seeds[0], given.auto)
            return
        print("| task | wrong | listed | precision | recall | before | relabelled | ", end="")
        print("as fixes.csv | left out | all right |\n|---|---|---|---|---|---|---|---|---|---|")
        for task in ("cifar-10", "signs"):
            label_rows(task, *tasks[task][1:], given.seeds)
        print("\n| clean set | images | findings | which |\n|---|---|---|---|")
        for task, (_, train, _) in tasks.items():
            clean_row(task, train)
        print("\n| task | copies | recall | precision |\n|---|---|---|---|")
        for task in ("cifar-10", "signs"):
            copy_rows(task, tasks[task][1])


if __name__ == "__main__":
    main()
