"""Full fine-tuning of both towers: the papers' FT baseline."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from fewclip.methods.base import (
    Inputs,
    Outputs,
    ParamGroup,
    tower_parameters,
)
from fewclip.methods.tuned_tower import TunedTower, TunedTowerOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneOptions(TunedTowerOptions):
    """Defaults of the Skip Tuning code's base-to-new runs."""

    lr: float = 1e-5
    warmup_epochs: int = 0


class FineTune(TunedTower):
    """Both towers except the embeddings, the patch convolution, `ln_pre` and `logit_scale`.

    The FT baseline of Wu et al., "Skip Tuning", CVPR 2025, arXiv 2412.11509.
    """

    name: ClassVar[str] = "fine-tune"
    Options: ClassVar[type[TunedTowerOptions]] = FineTuneOptions

    def param_groups(self) -> list[ParamGroup]:
        image, text = tower_parameters(self.backbone, 0, 0)
        return [ParamGroup({**text, **image}, self.options.lr)]

    def frozen_inputs(self, pixels: Tensor) -> Inputs:
        return (self.backbone.image_embed(pixels),)

    def outputs(self, inputs: Inputs, labels: Tensor) -> Outputs:
        return Outputs(
            self.backbone.image_features(inputs[0]), self.all_text_features(self.prompts), labels
        )
