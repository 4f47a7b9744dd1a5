"""GDA: Gaussian discriminant analysis on frozen features, in closed form, in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fewclip.heads import Head, Rows, fit_gda_heads
from fewclip.heads.linear import Ints
from fewclip.methods.base import MethodOptions
from fewclip.methods.frozen_head import FrozenHead
from fewclip.methods.linear_head import LinearHead, LinearHeadOptions

# Multiples of the Ledoit-Wolf amount: chosen, like the priors of the mixture, on training photos of
# CIFAR-10, signs, digits, surfaces, Tiny ImageNet and two drawn tasks, at 4, 8 and 16 images.
SHRINKAGE = (1.0, 4.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GDAOptions(LinearHeadOptions):
    """Those of every linear head."""


class GDAHead(LinearHead):
    """The discriminants, on whatever features they are given."""

    row_dtype: ClassVar[type[np.floating[Any]]] = np.float32  # moments are summed in float64

    def fit_heads(self, rows: Rows, labels: Ints, images: Ints) -> Sequence[Head]:
        return fit_gda_heads(rows, labels, images, self.n_classes, SHRINKAGE)


class GDA(GDAHead, FrozenHead):
    """Wang, Liang, Sheng, He, Wang, Tan, "A Hard-to-Beat Baseline for Training-free CLIP-based
    Adaptation", ICLR 2024, arXiv 2402.04087.

    Deviations from the paper: the shrinkage is estimated from the data (Ledoit-Wolf), and a head
    with four times as much is added; intermediate features are joined to the output features, and
    the discriminants on the output features alone are kept beside those; the weights of all four
    and of the text are chosen out of fold.
    """

    name: ClassVar[str] = "gda"
    Options: ClassVar[type[MethodOptions]] = GDAOptions
