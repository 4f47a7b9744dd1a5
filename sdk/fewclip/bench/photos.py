"""What a benchmark trains and tests on: classes in order, and images. It opens no file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from fewclip.bench.layouts import Layout
from fewclip.errors import DataError
from fewclip.images import Image

Half = Literal["all", "base", "new"]


@dataclasses.dataclass(frozen=True, slots=True)
class Photo:
    """One image of a data set.

    Attributes:
        image: what `preprocess.load_image` reads.
        label: index of its class.
        key: what identifies it wherever the data set is stored: the path below its root, or
            the hash of its pixels.
    """

    image: Image
    label: int
    key: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Classes in their published order, training and test images.

    Attributes:
        name: from the table, or the folder's.
        title: for people.
        classes: label -> phrase, in order. Labels of the ImageNet family are WordNet ids, so that
            they mean the same class in each of its members.
        train, test: images; `train` is empty if the data set is for testing only.
        layout: None for own folders.
        notes: what was done to the data without being asked for.
    """

    name: str
    title: str
    classes: dict[str, str]
    train: tuple[Photo, ...]
    test: tuple[Photo, ...]
    layout: Layout | None = None
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over classes and images: the same data anywhere, and only the same data."""
        digest = hashlib.sha256(json.dumps(list(self.classes.items())).encode())
        for part in (self.train, self.test):
            digest.update(b"\n--\n")
            for photo in sorted(part, key=lambda p: (p.key, p.label)):
                digest.update(f"{photo.key} {photo.label}\n".encode())
        return digest.hexdigest()

    def half(self, which: Half) -> list[int]:
        """Class indices: all, the first half rounded up (base), or the rest (new)."""
        n, middle = len(self.classes), math.ceil(len(self.classes) / 2)
        return list({"all": range(n), "base": range(middle), "new": range(middle, n)}[which])

    def phrases(self, which: Half = "all") -> dict[str, str]:
        """label -> phrase of one half."""
        items = list(self.classes.items())
        return dict(items[i] for i in self.half(which))

    def tested(self, which: Half = "all") -> list[Photo]:
        """Test images of one half, labels counted from 0 within it."""
        return _within(self.test, self.half(which))

    def sample(self, shots: int | Literal["all"], seed: int, which: Half = "all") -> list[Photo]:
        """`shots` training images per class of one half, labels counted from 0 within it.

        A class's sample depends on its label and the seed alone, and a larger one contains the
        smaller ones.

        Raises:
            DataError: the data set is for testing only.
        """
        if not self.train:
            raise DataError(
                f"{self.title} has no training images; it can only be a target of "
                "`cross-dataset` or `domain`"
            )
        labels = list(self.classes)
        piles: dict[int, list[Photo]] = defaultdict(list)
        for photo in _within(self.train, self.half(which)):
            piles[photo.label].append(photo)
        chosen = []
        for own, index in enumerate(self.half(which)):
            pile = sorted(piles[own], key=lambda p: p.key)
            order = permutation(labels[index], seed, len(pile))
            chosen += [pile[i] for i in order[: None if shots == "all" else shots]]
        return chosen


def _within(photos: Iterable[Photo], chosen: Sequence[int]) -> list[Photo]:
    place = {index: i for i, index in enumerate(chosen)}
    return [dataclasses.replace(p, label=place[p.label]) for p in photos if p.label in place]


def permutation(label: str, seed: int, n: int) -> list[int]:
    """0 .. n-1 shuffled, by label and seed alone."""
    own = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big")
    return [int(i) for i in np.random.default_rng([seed, own]).permutation(n)]
