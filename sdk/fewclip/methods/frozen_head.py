"""A linear head on features of frozen towers, in seconds. Not a method itself."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fewclip.heads import FeatureSample, FittedHead, fit_stacked
from fewclip.heads.linear import Ints
from fewclip.methods.linear_head import LinearHead


class FrozenHead(LinearHead):
    """A linear head whose weight against the text is fitted on folds of its own."""

    trains: ClassVar[bool] = False
    needs_blocks: ClassVar[bool] = False

    def fit(self, sample: FeatureSample, seed: int, fold: Ints | None = None) -> FittedHead:
        """Fit the head and its weight; returns its out-of-fold logits too.

        Args:
            fold: (n,) which fold holds each image out, -1 for none; None draws them from `seed`.
        """
        fitted = fit_stacked(
            sample,
            self.n_classes,
            self.fit_both,
            np.random.default_rng([seed, 2]),
            weight=self.options.dept_weight,
            dtype=self.row_dtype,
            fold=fold,
        )
        return self.use(fitted)
