"""Linear probe: logistic regression on frozen features, its strength chosen by cross-validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from fewclip.heads import (
    FeatureSample,
    FittedHead,
    Head,
    Rows,
    choose_strength,
    fit_logistic,
)
from fewclip.heads.linear import Ints
from fewclip.methods.base import MethodOptions
from fewclip.methods.frozen_head import FrozenHead
from fewclip.methods.linear_head import LinearHeadOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbeOptions(LinearHeadOptions):
    """Those of every linear head, and:

    Attributes:
        strength: inverse strength of regularization, scikit-learn's `C`; None chooses it.
    """

    strength: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.strength is None or self.strength > 0, "strength", "a number > 0, or None")


class LinearProbe(FrozenHead):
    """Multinomial logistic regression, the linear probe of Radford et al., ICML 2021,
    arXiv 2103.00020: on output features, and on these joined with intermediate ones; the weights of
    both and of the text are chosen out of fold.
    """

    name: ClassVar[str] = "linear-probe"
    Options: ClassVar[type[MethodOptions]] = LinearProbeOptions

    def fit(self, sample: FeatureSample, seed: int, fold: Ints | None = None) -> FittedHead:
        self.strength = self.options.strength
        if self.strength is None:
            rng = np.random.default_rng([seed, 3])
            self.strength = choose_strength(sample.plain(), sample.labels, self.n_classes, rng)
        return super().fit(sample, seed, fold)

    def fit_heads(self, rows: Rows, labels: Ints, images: Ints) -> Sequence[Head]:
        return [fit_logistic(rows, labels, self.n_classes, self.strength)]
