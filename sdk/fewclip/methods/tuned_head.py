"""A linear head on the features of a tuned image tower. Not a method itself.

Training tunes both towers first; the head is fitted afterwards, and its weight against the tuned
text with other towers' answers, which `training.cross_fit` collects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from fewclip.heads import FeatureSample, FittedHead, HeldOut, fit_on_folds, fit_to_views
from fewclip.heads.linear import Floats, Ints
from fewclip.methods.frozen_head import FrozenHead


class TunedHead(FrozenHead):
    """To be combined with a method that tunes towers, which comes after it among the bases."""

    trains: ClassVar[bool] = True
    needs_blocks: ClassVar[bool] = True
    tunes_towers_only: ClassVar[bool] = False

    def held_out(
        self,
        train: FeatureSample,
        held: FeatureSample,
        images: Ints,
        ood_terms: Mapping[str, Floats],
    ) -> HeldOut:
        """What this method's towers and heads on their features say of images they have not seen.

        Args:
            train: every image that the towers were tuned on, in all views.
            held: the others.
            images: (h,) indices of `held`'s among all.
            ood_terms: `held`'s, of the OOD score fitted with these towers.
        """
        rows = held.plain(dtype=self.row_dtype)
        every = np.arange(len(train.labels))
        heads = fit_to_views(train, every, self.fit_both, self.row_dtype)
        logits = [head(rows).astype(np.float32) for head in heads]
        return HeldOut(images, held.labels, held.logits_itm, logits, ood_terms)

    def fit_on_folds(self, sample: FeatureSample, folds: Sequence[HeldOut]) -> FittedHead:
        """Fit the head on the tuned towers' features, its weight on the folds' answers."""
        weight = self.options.dept_weight
        fitted = fit_on_folds(sample, folds, self.fit_both, weight, self.row_dtype)
        self._set(fitted.head.weight, fitted.head.bias)
        self.dept_weight = fitted.weight
        return fitted

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **FrozenHead.state(self)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        super().load_state(state)
        FrozenHead.load_state(self, state)
