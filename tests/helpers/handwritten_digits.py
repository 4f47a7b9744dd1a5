"""Folders of real handwritten digits, three classes of them."""

from __future__ import annotations

from pathlib import Path

from fewclip.samples import digits

LABELS = ("four", "one", "zero")  # as adapt sorts them
PHRASES = {label: f"handwritten digit {label}" for label in LABELS}


def write_digits(folder: Path, first: int, count: int) -> Path:
    """`count` digits of each class from number `first` on, one sub-folder per class."""
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for i in range(first, first + count):
            digits.draw(label, i).save(folder / label / f"{i}.png")
    return folder
