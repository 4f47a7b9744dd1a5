"""Tiny data sets in exactly the layouts of the published ones, for the tests of the bench."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fewclip.bench.layouts import IMAGENET_NAMES, LAYOUTS

WNIDS = {"n01": "great white shark", "n02": "goldfish", "n03": "tabby_cat", "n04": "goldfish"}


def write_photo(path: Path, hue: int, number: int) -> None:
    """A small noisy square whose colour tells the class."""
    rng = np.random.default_rng([hue, number])
    colour = np.array([(hue * 67) % 256, (hue * 131) % 256, (hue * 29) % 256])
    pixels = np.clip(colour + rng.normal(0, 20, (24, 24, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_folder(folder: Path, classes: Sequence[str], train: int, test: int) -> Path:
    """train/CLASS/, test/CLASS/; if `test` is 0, the class folders alone."""
    for hue, label in enumerate(classes):
        for i in range(train + test):
            part = ("train" if i < train else "test") if test else ""
            write_photo(folder / part / label / f"{i}.png", hue, i)
    return folder


def write_split(root: Path, name: str, classes: Sequence[str], train: int, test: int) -> Path:
    """A split_zhou_*.json data set; label ids count down, so that no other order passes."""
    layout = LAYOUTS[name]
    folder = root / layout.folder
    split: dict[str, list[list[object]]] = {"train": [], "val": [], "test": []}
    for i, said in enumerate(classes):
        for n in range(train + test):
            path = f"{said}/image_{n}.png"
            write_photo(folder / layout.images / path, i, n)
            part = "train" if n < train else "test"
            split[part].append([path, len(classes) - 1 - i, said])
    (folder / layout.split).write_text(json.dumps(split))
    return folder


def write_aircraft(root: Path, variants: Sequence[str], train: int, test: int) -> Path:
    folder = root / "fgvc_aircraft"
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for i, said in enumerate(variants):
        for n in range(train + test):
            number = f"{i:03d}{n:04d}"
            # The lists leave out the suffix, which is .jpg.
            place = folder / "images" / f"{number}.jpg"
            write_photo(place.with_suffix(".png"), i, n)
            place.with_suffix(".png").rename(place)
            lines["train" if n < train else "test"].append(f"{number} {said}")
    (folder / "variants.txt").write_text("".join(f"{said}\n" for said in variants))
    for part, each in lines.items():
        (folder / f"images_variant_{part}.txt").write_text("".join(f"{line}\n" for line in each))
    return folder


def write_imagenet(root: Path, train: int = 4, test: int = 2) -> Path:
    folder = root / "imagenet"
    _write_names(folder)
    for i, wnid in enumerate(WNIDS):
        for n in range(train):
            write_photo(folder / "images" / "train" / wnid / f"{n}.png", i, n)
        for n in range(test):
            write_photo(folder / "images" / "val" / wnid / f"{n}.png", i, 100 + n)
    return folder


def write_variants(root: Path) -> None:
    """ImageNet-V2 in numbered folders, -Sketch with all classes, -A and -R with some."""
    for i, wnid in enumerate(WNIDS):
        v2 = root / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
        write_photo(v2 / str(i) / "a.png", i, 200)
        write_photo(root / "imagenet-sketch" / "images" / wnid / "a.png", i, 300)
    for name, inner, wnids in (
        ("imagenet-adversarial", "imagenet-a", ("n01", "n03")),
        ("imagenet-rendition", "imagenet-r", ("n02", "n03", "n04")),
    ):
        for wnid in wnids:
            write_photo(root / name / inner / wnid / "a.png", int(wnid[1:]) - 1, 400)
        (root / name / inner / "README.txt").write_text("about the data")
    for name in ("imagenetv2", "imagenet-sketch", "imagenet-adversarial", "imagenet-rendition"):
        _write_names(root / name)


def _write_names(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / IMAGENET_NAMES).write_text("".join(f"{w} {said}\n" for w, said in WNIDS.items()))
