"""The fifteen published data sets: where their files are, as CoOp arranged them. A table, no code.

The arrangement is described at `DESCRIBED`; the images come from each data set's own page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

DESCRIBED = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
IMAGENET_NAMES = "classnames.txt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where one data set's files are.

    Attributes:
        title: as the papers write it; its heading in the description.
        folder: below the root of all data sets.
        images: what the paths of the lists, or the class folders, are relative to.
        kind: "split": a split_zhou_*.json; "lists": FGVC's text files; "folders": images by
            WordNet id, named in classnames.txt, with train/ and val/; "wnids": the same without
            them, for testing only; "numbers": folders 0, 1, ... in the order of classnames.txt.
        split: the split file.
        renamed: class names that are still folder names in the split file -> published names.
        quarter: Skip Tuning's published runs used a quarter of the epochs here.
    """

    title: str
    folder: str
    images: str = "images"
    kind: Literal["split", "lists", "folders", "wnids", "numbers"] = "split"
    split: str = ""
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    quarter: bool = False

    @property
    def described(self) -> str:
        return f"{DESCRIBED}#{self.title.lower()}"


_EUROSAT_NAMES = {
    "AnnualCrop": "Annual Crop Land",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "SeaLake": "Sea or Lake",
}

LAYOUTS = {
    "imagenet": Layout(title="ImageNet", folder="imagenet", kind="folders", quarter=True),
    "caltech101": Layout(
        title="Caltech101",
        folder="caltech-101",
        images="101_ObjectCategories",
        split="split_zhou_Caltech101.json",
    ),
    "oxford_pets": Layout(
        title="OxfordPets", folder="oxford_pets", split="split_zhou_OxfordPets.json"
    ),
    "stanford_cars": Layout(
        title="StanfordCars",
        folder="stanford_cars",
        images=".",
        split="split_zhou_StanfordCars.json",
    ),
    "oxford_flowers": Layout(
        title="Flowers102",
        folder="oxford_flowers",
        images="jpg",
        split="split_zhou_OxfordFlowers.json",
    ),
    "food101": Layout(
        title="Food101", folder="food-101", split="split_zhou_Food101.json", quarter=True
    ),
    "fgvc_aircraft": Layout(title="FGVCAircraft", folder="fgvc_aircraft", kind="lists"),
    "sun397": Layout(
        title="SUN397",
        folder="sun397",
        images="SUN397",
        split="split_zhou_SUN397.json",
        quarter=True,
    ),
    "dtd": Layout(title="DTD", folder="dtd", split="split_zhou_DescribableTextures.json"),
    "eurosat": Layout(
        title="EuroSAT",
        folder="eurosat",
        images="2750",
        split="split_zhou_EuroSAT.json",
        renamed=_EUROSAT_NAMES,
    ),
    "ucf101": Layout(
        title="UCF101",
        folder="ucf101",
        images="UCF-101-midframes",
        split="split_zhou_UCF101.json",
    ),
    "imagenetv2": Layout(
        title="ImageNetV2",
        folder="imagenetv2",
        images="imagenetv2-matched-frequency-format-val",
        kind="numbers",
    ),
    "imagenet_sketch": Layout(title="ImageNet-Sketch", folder="imagenet-sketch", kind="wnids"),
    "imagenet_a": Layout(
        title="ImageNet-A", folder="imagenet-adversarial", images="imagenet-a", kind="wnids"
    ),
    "imagenet_r": Layout(
        title="ImageNet-R", folder="imagenet-rendition", images="imagenet-r", kind="wnids"
    ),
}
VARIANTS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
ELEVEN = tuple(name for name in LAYOUTS if name not in VARIANTS)
