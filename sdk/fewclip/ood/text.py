"""What the text tower says of an image, compared with words that mean nothing in particular.

Jiang, Liu, Fang, Chen, Liu, Zheng, Han, "Negative Label Guided OOD Detection with Pretrained
Vision-Language Models", ICLR 2024, arXiv 2403.20078: an image of a class is more similar to its
name than to the names of many other things. Deviations: the negative labels are the most frequent
words of CLIP's vocabulary, whatever the classes are; the score is a log-ratio per class.

A typed-in class has no training images, so this is all there is to recognise it by. How similar
training images are to their names is no guide where the text tower does not know those names; the
ratio means the same for any class.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.ood.features import Floats

NEGATIVE_LABELS = 256
LEAST_RATIO = 4.0  # a typed-in class must be this many times as probable as the mean negative label
ALLOWED_DEVIATIONS = 2.0  # below the in-distribution mean; beyond, the name must be surer
LOG_RATIO_PER_DEVIATION = 0.3

_ARRAYS = ("classes", "negatives", "named_negatives", "bias")


@dataclasses.dataclass(frozen=True)
class TextFeatures:
    """Rows r with r . x = s cos for unit image features x (D,) and logit scale s.

    Attributes:
        classes: (C, D) float16, the trained classes by name, before anything was learned from their
            images, which would otherwise be too similar to them.
        negatives: (K, D) float16, negative labels encoded in the same way.
        named_negatives: (K, D) float16, negative labels as the method encodes a typed-in class,
            learned context included.
        bias: (1,) float32, what the backbone adds to each logit.
    """

    classes: npt.NDArray[np.float16]
    negatives: npt.NDArray[np.float16]
    named_negatives: npt.NDArray[np.float16]
    bias: npt.NDArray[np.float32]

    def log_ratios(self, features: Floats) -> Floats:
        """(B, D) of length 1 -> (B, C): each class against the mean negative label."""
        logits = features @ self.classes.astype(np.float64).T
        ratios: Floats = logits - _log_mean(features, self.negatives)[:, None]
        return ratios

    def named_bound(self, features: Floats, unlikeness: Floats) -> Floats:
        """The ITM logit from which an image is known as one of a typed-in class: (B,).

        Args:
            features: (B, D) of length 1.
            unlikeness: (B,) deviations by which the class-independent part of the OOD score is
                below its in-distribution mean. The higher it is, the surer the name must be.
        """
        beyond = np.maximum(unlikeness - ALLOWED_DEVIATIONS, 0)
        ratio = math.log(LEAST_RATIO) + LOG_RATIO_PER_DEVIATION * beyond
        bound: Floats = _log_mean(features, self.named_negatives) + float(self.bias[0]) + ratio
        return bound

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {f"ood_text_{name}": getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> TextFeatures | None:
        """`to_arrays` read back; None if there are none of them, KeyError if some are missing."""
        if not any(name.startswith("ood_text_") for name in arrays):
            return None
        return cls(**{name: arrays[f"ood_text_{name}"] for name in _ARRAYS})

    def fits(self, classes: int, width: int) -> bool:
        """Whether the shapes suit this many classes and features."""
        rows = (self.negatives, self.named_negatives)
        return (
            self.classes.shape == (classes, width)
            and all(row.ndim == 2 and len(row) and row.shape[1] == width for row in rows)
            and self.bias.shape == (1,)
        )


def _log_mean(features: Floats, rows: npt.NDArray[np.float16]) -> Floats:
    """(B, D), (K, D) -> (B,) logarithm of the mean of exp(logit)."""
    logits = features @ rows.astype(np.float64).T
    top = logits.max(1)
    found: Floats = top + np.log(np.exp(logits - top[:, None]).mean(1))
    return found
