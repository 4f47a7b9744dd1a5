"""How good a model is on images that it was not trained on, and which of them it gets wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fewclip.base import BaseClassifier
from fewclip.data import Skipped, Split, read_labelled
from fewclip.decide import Prediction
from fewclip.report import Report

if TYPE_CHECKING:
    from fewclip_app.work.job_queue import Job
    from fewclip_app.work.uploads import Photo

TOP = 5
AT_ONCE = 32  # images evaluated between two progress reports


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One image that was answered wrongly."""

    photo: Photo
    truth: str
    answer: Prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good a model is on images that it was not trained on.

    Attributes:
        before: the same images, by class names alone.
        own: whether they are the person's own test images rather than kept out of training.
        mistakes: wrong answers, the most confident first.
    """

    before: Report
    after: Report
    own: bool
    mistakes: tuple[Mistake, ...]


def measure(
    classifier: BaseClassifier, images: Sequence[tuple[Photo, str]], job: Job, stage: str
) -> tuple[Report, tuple[Mistake, ...]]:
    """The report on the images, and the wrong answers."""
    parts = []
    for first in range(0, len(images), AT_ONCE):
        job.begin(stage, first / len(images))
        part = [photo.path for photo, _ in images[first : first + AT_ONCE]]
        parts.append(classifier.predict_proba(part))
    proba = np.concatenate(parts)
    truth = [classifier.classes.index(label) for _, label in images]
    wrong = [pair for pair, row, i in zip(images, proba, truth, strict=True) if row.argmax() != i]
    answers = classifier.predict([photo.path for photo, _ in wrong], top_k=TOP) if wrong else []
    mistakes = [Mistake(photo, label, a) for (photo, label), a in zip(wrong, answers, strict=True)]
    mistakes.sort(key=lambda mistake: -mistake.answer.score)
    return Report.from_predictions(proba, truth, classifier.classes), tuple(mistakes)


def unseen(
    test: Sequence[tuple[Photo, str]], split: Split
) -> tuple[list[tuple[Photo, str]], list[Skipped]]:
    """The test images that the model is not trained on, and those left out, with reasons."""
    learned = {item.content for item in split.train}
    items, _ = read_labelled([(photo.path, label) for photo, label in test], split.classes)
    contents = {str(item.image): item.content for item in items}
    new, repeated = [], []
    for photo, label in test:
        content = contents.get(str(photo.path))
        if content in learned:
            repeated.append(Skipped(photo.source, "a test image that is also one to learn from"))
        elif content is not None:
            new.append((photo, label))
    return new, repeated
