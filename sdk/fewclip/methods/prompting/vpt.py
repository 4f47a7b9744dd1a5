"""VPT: learned prompts in the image tower only; class names go through a plain template."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from fewclip.methods.base import Inputs, Method, MethodOptions, Outputs
from fewclip.methods.prompting.prompts import DeepOptions, deep_prompts, prompted_image_features


@dataclasses.dataclass(frozen=True, kw_only=True)
class VPTOptions(DeepOptions):
    """No official code exists for this row of the DePT paper: batch size, learning rate and
    epochs are those of its code for MaPLe, the other method with prompts in the image tower.

    Attributes:
        n_ctx: prompts per level.
    """

    lr: float = 0.0035
    n_ctx: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(isinstance(self.n_ctx, int) and self.n_ctx >= 1, "n_ctx", "a whole number >= 1")


class VPT(Method):
    """Jia et al., "Visual Prompt Tuning", ECCV 2022, arXiv 2203.12119, as a row of the DePT paper
    (arXiv 2309.07439): prompts after the patch tokens, overwritten at blocks `1 .. depth-1`, as in
    PromptSRC. Both towers frozen."""

    name: ClassVar[str] = "vpt"
    Options: ClassVar[type[MethodOptions]] = VPTOptions
    trains_images = True

    def build(self, generator: torch.Generator) -> None:
        backbone, options = self.backbone, self.options
        depth, _ = options.depths(backbone)
        self.image_prompts = deep_prompts(
            depth, options.n_ctx, backbone.image_width, backbone, generator
        )

    @torch.no_grad()
    def setup(self, phrases: Sequence[str]) -> None:
        super().setup(phrases)
        self.text = self.all_text_features(self.prompts)

    def frozen_inputs(self, pixels: Tensor) -> Inputs:
        return (self.backbone.image_embed(pixels),)

    def outputs(self, inputs: Inputs, labels: Tensor) -> Outputs:
        image = prompted_image_features(self.backbone, inputs[0], list(self.image_prompts))
        return Outputs(image, self.text, labels)

    def image_features(self, pixels: Tensor, taps: dict[int, Tensor] | None = None) -> Tensor:
        embedded = self.backbone.image_embed(pixels)
        return prompted_image_features(self.backbone, embedded, list(self.image_prompts), taps)
