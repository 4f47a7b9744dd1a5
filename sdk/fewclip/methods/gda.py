"""GDA: Gaussian discriminant analysis on frozen features, in closed form, in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from fewclip.heads import Head, fit_gda
from fewclip.heads.linear import Floats, Ints
from fewclip.methods.base import MethodOptions
from fewclip.methods.frozen_head import FrozenHead, FrozenHeadOptions, widened


@dataclasses.dataclass(frozen=True, kw_only=True)
class GDAOptions(FrozenHeadOptions):
    """Those of every head on frozen features."""


class GDA(FrozenHead):
    """Wang, Liang, Sheng, He, Wang, Tan, "A Hard-to-Beat Baseline for Training-free CLIP-based
    Adaptation", ICLR 2024, arXiv 2402.04087.

    Deviations from the paper: the shrinkage is estimated from the data (Ledoit-Wolf); intermediate
    features are joined to the output features, and the discriminant on the output features alone
    counts beside it; the weights of both against the text are chosen out of fold.
    """

    name: ClassVar[str] = "gda"
    Options: ClassVar[type[MethodOptions]] = GDAOptions

    def fit_heads(self, rows: Floats, labels: Ints, images: Ints) -> Sequence[Head]:
        joined = fit_gda(rows, labels, images, self.n_classes)
        width = self.backbone.embed_dim
        if rows.shape[1] == width:
            return [joined]
        output = fit_gda(rows[:, :width], labels, images, self.n_classes)
        return [joined, widened(output, rows.shape[1])]
