"""What fine-tune and skip-tuning share: training the towers' own weights. Not a method itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from fewclip.methods.base import Method, MethodOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunedTowerOptions(MethodOptions):
    """
    Attributes:
        interpolation: share of the tuned weights in the final ones; the rest is the pre-trained
            weights'. 1, as published, keeps the trained weights. Less is WiSE-FT (Wortsman et
            al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv 2109.01903).
    """

    interpolation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.interpolation, (int, float))
        self.check(number and 0 <= self.interpolation <= 1, "interpolation", "in [0, 1]")


class TunedTower(Method):
    """Trains blocks of both towers in place, and may interpolate back towards the start."""

    trains_images = True
    _start: Mapping[str, Tensor] = MappingProxyType({})
    dept_ready: ClassVar[bool] = False
    tunes_towers_only: ClassVar[bool] = True

    def setup(self, phrases: Sequence[str]) -> None:
        super().setup(phrases)
        if self.options.interpolation < 1:
            trained = self.trained_parameters()
            self._start = {name: p.detach().clone() for name, p in trained.items()}

    def after_training(self) -> None:
        if self._start:
            self.interpolate(self._start, self.options.interpolation)
        self._start = {}

    @torch.no_grad()
    def interpolate(self, start: Mapping[str, Tensor], share: float) -> None:
        """WiSE-FT: `share` of the current weights, the rest from `start`, by name."""
        for name, parameter in self.trained_parameters().items():
            parameter.lerp_(start[name].to(parameter), 1 - share)
