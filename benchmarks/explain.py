"""Is the heat where the reason is? Prints Markdown tables.

    python -m benchmarks.explain [DATA] [--first 1000] [--count 30] [--photos 10]
                                 [--methods gda ...] [--parts surfaces photos]

On drawn surfaces, whose damage is known to the pixel: pointing accuracy (the hottest pixel lies on
the damage, or within half a patch, 8 pixels, of it) and the share of all heat that lies there, for
four methods, by attention relevance, by occlusion, and by a Gaussian blob in the middle of the
image. On CIFAR-10 test photos: deletion and insertion (Petsiuk, Das, Saenko, "RISE", BMVC 2018):
mean probability of the answer while the hottest parts are removed first, or restored first;
besides the blob, patches in random order are a baseline there.

DATA holds the photo archives (default: shared/data beside the project).
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageFilter
from scipy import ndimage

import fewclip
from benchmarks.own_data import read_task
from fewclip import decide
from fewclip.explain import Question, occlusion
from fewclip.explain.explanation import Heat, over_photo
from fewclip.preprocess import Inputs, load_image, resize_and_crop, to_input
from fewclip.samples import surfaces

PARTS = ("surfaces", "photos")
METHODS = ("zero-shot", "skip-tuning", "gda", "kgcoop+dept")
DAMAGED = tuple(label for label in surfaces.PHRASES if label != "whole")
SHOTS = 16
NEAR = 8  # pixels around the damage: half a patch of `micro` on a surface
PATCH = 8  # pixels of a patch of `micro`
STEPS = 16  # of deletion and insertion
Floats = npt.NDArray[np.float64]
# (classifier, photo, label) -> (H, W) heat.
Explain = Callable[[fewclip.Classifier, PILImage.Image, str], Heat]


def by_attention(clf: fewclip.Classifier, photo: PILImage.Image, label: str) -> Heat:
    return clf.explain(photo, label).heatmap


def by_occlusion(clf: fewclip.Classifier, photo: PILImage.Image, label: str) -> Heat:
    """Occlusion, as an exported model explains its answers."""

    def answer(images: Inputs) -> Floats:
        itm, cat = clf.logits(images)
        return decide.log_probabilities(itm, cat, clf.card.head, clf.card.temperature)

    spec = clf.card.preprocessing
    heat = occlusion(answer, to_input(photo, spec), Question(clf.classes.index(label)))
    return over_photo(heat, photo, spec)


def blob(clf: fewclip.Classifier, photo: PILImage.Image, label: str) -> Heat:
    """No explanation at all: a Gaussian in the middle, a quarter of the side wide."""
    y, x = np.mgrid[-1 : 1 : photo.height * 1j, -1 : 1 : photo.width * 1j]
    heat: Heat = np.exp(-(x**2 + y**2) / (2 * 0.5**2)).astype(np.float32)
    return heat


def random_order(clf: fewclip.Classifier, photo: PILImage.Image, label: str) -> Heat:
    """No explanation at all: a random value for each patch, seeded by the photo."""
    rng = np.random.default_rng(int.from_bytes(photo.tobytes()[:8]))
    grid = rng.random((clf.card.preprocessing.size // PATCH,) * 2, np.float32)
    sides = photo.size
    return np.asarray(PILImage.fromarray(grid).resize(sides, PILImage.Resampling.NEAREST))


EXPLAIN: Mapping[str, Explain] = {
    "attention": by_attention,
    "occlusion": by_occlusion,
    "blob": blob,
}
PHOTO_EXPLAIN: Mapping[str, Explain] = {**EXPLAIN, "random order": random_order}


def adapted(method: str, data: Any, phrases: Mapping[str, str]) -> fewclip.Classifier:
    if method == "zero-shot":
        return fewclip.zero_shot(phrases, device="cpu")
    return fewclip.adapt(
        data, method=method, shots=SHOTS, classes=dict(phrases), val=0, device="cpu", progress=False
    )


# ---- surfaces ------------------------------------------------------------------------------------


def pointed(heat: Heat, damage: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """1 if the hottest pixel is on the damage; the share of heat that is."""
    hit = damage[np.unravel_index(int(heat.argmax()), heat.shape)]
    return float(hit), float(heat[damage].sum() / max(float(heat.sum()), 1e-9))


def surface_rows(methods: Sequence[str], first: int, count: int) -> Iterator[str]:
    """One Markdown row for each method and way to explain."""
    train = {k: [surfaces.draw(k, i) for i in range(SHOTS)] for k in surfaces.PHRASES}
    drawn = [(k, *surfaces.draw_with_damage(k, first + i)) for i in range(count) for k in DAMAGED]
    near = [ndimage.binary_dilation(damage, iterations=NEAR) for _, _, damage in drawn]
    area = np.mean([damage.mean() for damage in near])
    yield f"Damage and its surroundings: {area:.1%} of the image; {len(drawn)} images.\n"
    yield "| method | right | explained by | pointing | heat inside | right answers alone |"
    yield "|---|---|---|---|---|---|"
    for method in methods:
        clf = adapted(method, train, surfaces.PHRASES)
        answers = clf.predict([photo for _, photo, _ in drawn])
        right = np.array([p.label == d[0] for p, d in zip(answers, drawn, strict=True)])
        for name, explain in EXPLAIN.items():
            heats = [explain(clf, photo, label) for label, photo, _ in drawn]
            rows = np.array([pointed(h, d) for h, d in zip(heats, near, strict=True)])
            every, own = rows.mean(0), rows[right].mean(0)
            yield (
                f"| {method} | {right.mean():.1%} | {name} | {every[0]:.1%} | {every[1]:.1%} | "
                f"{own[0]:.1%}, {own[1]:.1%} |"
            )


# ---- photos --------------------------------------------------------------------------------------


def curves(
    clf: fewclip.Classifier, seen: PILImage.Image, heat: Heat, label: int
) -> tuple[float, float]:
    """Mean probability of `label` on the way: (deletion, insertion).

    What is deleted is blurred, and what is inserted comes back into a blurred image.
    """
    whole = np.asarray(seen)
    blurred = np.asarray(seen.filter(ImageFilter.GaussianBlur(seen.width / 6)))
    order = (-heat.ravel()).argsort(kind="stable").argsort().reshape(heat.shape)
    steps = [order < heat.size * k / STEPS for k in range(STEPS + 1)]
    deleted = [np.where(hot[..., None], blurred, whole) for hot in steps]
    inserted = [np.where(hot[..., None], whole, blurred) for hot in steps]
    found = clf.predict_proba([*deleted, *inserted])[:, label]
    return float(found[: STEPS + 1].mean()), float(found[STEPS + 1 :].mean())


def photo_rows(data: Path, methods: Sequence[str], count: int) -> Iterator[str]:
    """One Markdown row for each method and way to explain; `count` test photos a class."""
    yield "| method | explained by | deletion (lower is better) | insertion (higher is better) |"
    yield "|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        phrases, train, test = read_task(data, Path(folder), "cifar-10")
        for method in methods:
            clf = adapted(method, train, phrases)
            size = clf.card.preprocessing.size
            mode = {"interpolation": "bicubic", "resize_mode": "shortest"}
            photos = [
                resize_and_crop(load_image(file), size=size, **mode)
                for label in clf.classes
                for file in test[label][:count]
            ]
            answers = [p.label for p in clf.predict(photos)]
            for name, explain in PHOTO_EXPLAIN.items():
                rows = [
                    curves(clf, photo, explain(clf, photo, label), clf.classes.index(label))
                    for photo, label in zip(photos, answers, strict=True)
                ]
                deletion, insertion = np.mean(rows, axis=0)
                yield f"| {method} | {name} | {deletion:.3f} | {insertion:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--first", type=int, default=1000, help="first seed of the surfaces")
    parser.add_argument("--count", type=int, default=30, help="surfaces of each damage")
    parser.add_argument("--photos", type=int, default=10, help="photos of each class")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if "surfaces" in given.parts:
        for row in surface_rows(given.methods, given.first, given.count):
            print(row, flush=True)
        print()
    if "photos" in given.parts:
        for row in photo_rows(given.data, given.methods, given.photos):
            print(row, flush=True)


if __name__ == "__main__":
    main()
