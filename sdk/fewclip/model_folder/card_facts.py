"""The known keys of a card's open parts. Types only; `card_schema` checks them.

`data`, `metrics`, `training` and `backbone` are free to grow, and other code reads a few of their
keys. Those are named here, so a card whose `training.phrases` is null is refused on reading
and not by the code that uses it later. Keys that are optional are in a class with `total=False`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict


class BackboneFacts(TypedDict):
    """`hash`: sha256 of the weights; `context_length`: tokens of a prompt."""

    name: str
    hash: str
    context_length: int


class ValidationFile(TypedDict):
    """An image kept out of training: its path, its class and a hash of its content."""

    path: str
    label: str
    sha256: str


class DataFacts(TypedDict, total=False):
    """`source`: the path that the images came from; null if they came from none."""

    source: str | None
    validation_files: Sequence[ValidationFile]


class Figures(TypedDict):
    """How a model did on `n` images; null where a figure is not defined."""

    accuracy: float
    macro_f1: float | None
    ece: float | None
    n: int


class Accuracy(TypedDict):
    """The share of `n` images that were answered right."""

    accuracy: float
    n: int


class MetricFacts(TypedDict, total=False):
    """Zero-shot's figures and the model's own, and gda's accuracy, on the same images.

    `out_of_fold`: figures on the training images, each classified by a model that had not seen it.
    """

    before: Figures | None
    after: Figures | None
    out_of_fold: Figures | None
    gda: Accuracy


class TrainingFacts(TypedDict, total=False):
    """`phrases`: the trained classes, in the order of the head's columns; `warnings`: what a user
    should know before relying on the model."""

    run_id: str
    phrases: Mapping[str, str]
    losses: Sequence[float | None]
    resumed_from_epochs: Sequence[int]
    device: str
    warnings: Sequence[str]
