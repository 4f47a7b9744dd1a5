"""A linear head on the features of a tuned image tower. Not a method itself.

Training tunes both towers; the head is fitted afterwards, and its weight against the tuned text
on outputs of towers that were tuned on a part of the images (`training.cross_fit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from fewclip.heads import FeatureSample, FittedHead, FoldOutputs, fit_on_folds, fit_to_views
from fewclip.heads.linear import Floats, Ints
from fewclip.methods.linear_head import LinearHead


class TunedHead(LinearHead):
    """A mixin: the method that tunes the towers comes after it among the bases."""

    tunes_towers_only: ClassVar[bool] = False

    def fold_outputs(
        self,
        train: FeatureSample,
        held: FeatureSample,
        images: Ints,
        ood_terms: Mapping[str, Floats],
    ) -> FoldOutputs:
        """Outputs for the images of a fold, which these towers and their heads have not seen.

        Args:
            train: the images that the towers were tuned on, in all views.
            held: those of the fold.
            images: (h,) indices of the latter among all.
            ood_terms: of the latter, by the OOD score fitted with these towers.
        """
        rows = held.plain(dtype=self.row_dtype)
        every = np.arange(len(train.labels))
        heads = fit_to_views(train, every, self.fit_both, self.row_dtype)
        logits = [head(rows).astype(np.float32) for head in heads]
        return FoldOutputs(images, held.labels, held.logits_itm, logits, ood_terms)

    def fit_on_folds(self, sample: FeatureSample, folds: Sequence[FoldOutputs]) -> FittedHead:
        """Fit the head on the tuned towers' features, its weight on the folds' outputs."""
        weight = self.options.dept_weight
        return self.use(fit_on_folds(sample, folds, self.fit_both, weight, self.row_dtype))

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **LinearHead.state(self)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        super().load_state(state)
        LinearHead.load_state(self, state)
