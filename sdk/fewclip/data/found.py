"""What a data set claims to hold: labelled images, and what is left out. It does no searching."""

from __future__ import annotations

import dataclasses

from fewclip.images import Image

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Found:
    """One image, not yet verified.

    Attributes:
        image: what `images.load_image` reads.
        label: the class it is labelled as.
        source: where it is, for people: "photos/cat/1.jpg", "cat[3]", "labels.csv row 7 (...)".
    """

    image: Image
    label: str
    source: str


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Something that was found but is not used, and why."""

    source: str
    reason: str


@dataclasses.dataclass
class Scan:
    """What a data set claims to hold.

    Attributes:
        name: what to call the data set in a message.
        splits: "train", "val", "test" -> images; without splits, all are in "train".
        divided: whether the data set itself is divided into splits.
        labels: every class of "train", even one without images.
    """

    name: str
    splits: dict[str, list[Found]]
    divided: bool = False
    labels: set[str] = dataclasses.field(default_factory=set)
    skipped: list[Skipped] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
