"""Skip Tuning, with Gaussian discriminant analysis on the features of the tuned image tower."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from fewclip.methods.gda import GDAHead, GDAOptions
from fewclip.methods.linear_head import LinearHead
from fewclip.methods.skip_tuning import SkipTuning, SkipTuningOptions
from fewclip.methods.tuned_head import TunedHead


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkipTuningGDAOptions(SkipTuningOptions, GDAOptions):
    """Skip Tuning's and the head's; both train on the head's crops, which are gentle.

    Attributes:
        epochs: as in the paper's few-shot setting, since what is learned is the training classes.
    """

    epochs: int = 40
    crop_area: float = GDAOptions.crop_area
    flip: bool = GDAOptions.flip
    views: int = GDAOptions.views


class SkipTuningGDA(TunedHead, SkipTuning, GDAHead):
    """Skip Tuning (`skip_tuning`), then `gda`'s heads on the tuned image tower's features, beside
    the tuned text; of no paper. The heads' weight is fitted out of fold, with towers that are tuned
    once more for each fold, on the other images. Classes added by name are answered by the tuned
    text, as with Skip Tuning alone.
    """

    name: ClassVar[str] = "skip-tuning+gda"
    Options: ClassVar[type[SkipTuningGDAOptions]] = SkipTuningGDAOptions
    dept_ready: ClassVar[bool] = False
    needs_blocks: ClassVar[bool] = True

    def build(self, generator: torch.Generator) -> None:
        SkipTuning.build(self, generator)
        LinearHead.build(self, generator)
