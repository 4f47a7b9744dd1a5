"""What `suggest` is worth: accuracy by number of labels, beside random choice. Prints Markdown.

    python -m benchmarks.suggest [DATA] [--seeds 101 102 103 104 105] [--bunches]

Of the training photos of CIFAR-10 and signs (64 a class), two a class are labelled at random; then
20 at a time, suggested ones or as many random ones, up to 160. `gda` is refitted at each step, on
features that are computed once, and measured on test photos, which took no part in any choice. The
rule was chosen on halves of the training photos (seeds 1 to 20).
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageEnhance

import fewclip
from benchmarks.own_data import read_task
from fewclip.heads import FeatureSample, FittedHead, Head, Rows, fit_gda, fit_stacked
from fewclip.images import load_image
from fewclip.ood import NEAREST_PARTS, ood_parts
from fewclip.preprocess import preprocess
from fewclip.suggest import Candidates, grey_copies, suggest
from fewclip.training.features import sample_features

TASKS = ("cifar-10", "signs")
START, STEP, STEPS = 2, 2, 7  # labels a class: at first, in each round; rounds
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Pool(NamedTuple):
    """Photos to label, photos to test on, and `grey_copies` of the first."""

    train: FeatureSample
    test: FeatureSample
    looks: npt.NDArray[np.float32]
    classes: list[str]


def shot_again(image: PILImage.Image, rng: np.random.Generator) -> PILImage.Image:
    """The same scene a moment later: a little nearer, brighter or darker."""
    side = round(image.width * rng.uniform(0.85, 0.97))
    left, top = rng.integers(0, image.width - side + 1, 2)
    cut = image.crop((left, top, left + side, top + side)).resize(image.size)
    return ImageEnhance.Brightness(cut).enhance(rng.uniform(0.85, 1.15))


def read_pool(data: Path, task: str, *, bunches: bool) -> Pool:
    """Read a task; with `bunches`, one photo in four is there eight times, each shot again."""
    with tempfile.TemporaryDirectory() as folder:
        phrases, train, test = read_task(data, Path(folder), task)
        classes = sorted(phrases)
        clf = fewclip.zero_shot(phrases, device="cpu")
        samples, images = [], []
        rng = np.random.default_rng(0)
        for part in (train, test):
            photos = [(load_image(f), i) for i, label in enumerate(classes) for f in part[label]]
            if bunches and part is train:
                some = [each for k, each in enumerate(photos) if k % 4 == 0]
                photos += [(shot_again(image, rng), i) for image, i in some for _ in range(7)]
            images.append([image for image, _ in photos])
            labels = [i for _, i in photos]
            told = [phrases[label] for label in classes]
            samples.append(sample_features(clf.method, images[-1], labels, told))
    looks = grey_copies(preprocess(images[0], clf.card.preprocessing))
    return Pool(samples[0], samples[1], looks, classes)


def fitted(sample: FeatureSample, classes: int, seed: int) -> FittedHead:
    """`gda` without augmented views; its weight against the text is chosen out of fold."""

    def heads(rows: Rows, labels: Ints, images: Ints) -> list[Head]:
        return [fit_gda(rows, labels, images, classes)]

    return fit_stacked(sample, classes, heads, np.random.default_rng([seed, 2]))


def answers(head: FittedHead, sample: FeatureSample) -> Floats:
    """(N, M) probabilities."""
    itm = np.asarray(sample.logits_itm, np.float64)
    logits = (1 - head.weight) * itm + head.weight * head.head(sample.plain())
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True))


def curve(pool: Pool, seed: int, *, suggested: bool) -> Floats:
    """(STEPS + 1,) accuracy on the test photos after each round."""
    rng = np.random.default_rng(seed)
    truth, m = pool.train.labels, len(pool.classes)
    parts = ood_parts(pool.train.features, pool.train.intermediate)
    features = np.concatenate(parts[:NEAREST_PARTS], axis=1)
    own = [rng.permutation(np.flatnonzero(truth == c))[:START] for c in range(m)]
    labelled = np.concatenate(own)
    accuracies = []
    for step in range(STEPS + 1):
        head = fitted(pool.train.take(labelled), m, seed)
        right = answers(head, pool.test).argmax(1) == pool.test.labels
        accuracies.append(right.mean())
        if step == STEPS:
            break
        rest = np.setdiff1d(np.arange(len(truth)), labelled)
        new = rng.choice(rest, STEP * m, replace=False)
        if suggested:
            names = [str(i) for i in rest]  # in place of the images themselves
            seen = Candidates(names, features[rest], pool.looks[rest], features[labelled])
            found = suggest(seen, STEP * m)
            new = np.array([int(str(each.image)) for each in found])
        labelled = np.concatenate([labelled, new])
    return np.array(accuracies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--seeds", nargs="+", type=int, default=[101, 102, 103, 104, 105])
    parser.add_argument("--bunches", action="store_true", help="many shots of the same scenes")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    counts = " | ".join(str(START + STEP * k) for k in range(STEPS + 1))
    print(f"| task | choice | {counts} | area | gained (95 %) |")
    print("|---|---|" + "---|" * (STEPS + 3))
    for task in TASKS:
        pool = read_pool(given.data, task, bunches=given.bunches)
        areas = {}
        for suggested in (False, True):
            rows = np.array([curve(pool, seed, suggested=suggested) for seed in given.seeds])
            areas[suggested] = rows.mean(1)
            name = "suggested" if suggested else "random"
            cells = " | ".join(f"{100 * x:.1f}" for x in rows.mean(0))
            gained = ""
            if suggested:
                gap = 100 * (areas[True] - areas[False])
                half = 2.78 * gap.std(ddof=1) / np.sqrt(len(gap))  # Student's t of five seeds
                gained = f"{gap.mean():+.1f} ± {half:.1f}"
            print(f"| {task} | {name} | {cells} | {100 * rows.mean():.1f} | {gained} |", flush=True)


if __name__ == "__main__":
    main()
