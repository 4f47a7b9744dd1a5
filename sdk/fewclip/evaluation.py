"""A model on labelled images -> Report, for a Classifier and an OnnxClassifier alike. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fewclip.preprocess import Image
from fewclip.report import Report


class Model(Protocol):
    """What both kinds of classifier offer."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def predict_proba(self, images: Sequence[Image], /) -> npt.NDArray[Any]: ...


def evaluate(model: Model, data: Any) -> Report:
    """Judge `model` on `data`, given in any of the forms that `adapt` takes.

    A data set with a test/ split is judged on that.

    Raises:
        ClassNameError: a label that the model does not know.
        DataError: nothing to evaluate on.
    """
    from fewclip.data import read_labelled

    items, skipped = read_labelled(data, model.classes)
    proba = model.predict_proba([item.image for item in items])
    truth = np.array([item.label for item in items], dtype=np.int64)
    return Report.from_predictions(
        proba,
        truth,
        model.classes,
        skipped=[{"source": s.source, "reason": s.reason} for s in skipped],
    )
