"""CLIP-Adapter: a small bottleneck on the image feature, mixed with the feature itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fewclip.methods.base import Inputs, Method, MethodOptions, Outputs
from fewclip.methods.prompting.prompts import linear


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPAdapterOptions(MethodOptions):
    """Defaults of the Skip Tuning code.

    Attributes:
        ratio: share of the adapted feature in the mixture.
        reduction: how much narrower the bottleneck is than the feature.
    """

    lr: float = 0.0035
    ratio: float = 0.2
    reduction: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(0 <= self.ratio <= 1, "ratio", "in [0, 1]")
        whole = isinstance(self.reduction, int) and self.reduction >= 1
        self.check(whole, "reduction", "a whole number >= 1")


class CLIPAdapter(Method):
    """Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", IJCV 2024,
    arXiv 2110.04544: `ratio * net(v) + (1 - ratio) * v` on the un-normalised image feature; both
    towers frozen, a plain template."""

    name: ClassVar[str] = "clip-adapter"
    Options: ClassVar[type[MethodOptions]] = CLIPAdapterOptions
    needs_blocks: ClassVar[bool] = False
    trains_images = True
    frozen_images: bool = True

    def build(self, generator: torch.Generator) -> None:
        backbone = self.backbone
        d = backbone.embed_dim
        width = max(d // self.options.reduction, 1)
        self.adapter = nn.Sequential(
            linear(d, width, backbone, generator, bias=False),
            nn.ReLU(),
            linear(width, d, backbone, generator, bias=False),
            nn.ReLU(),
        )

    @torch.no_grad()
    def setup(self, phrases: Sequence[str]) -> None:
        super().setup(phrases)
        self.text = self.all_text_features(self.prompts)

    def outputs(self, inputs: Inputs, labels: Tensor) -> Outputs:
        return Outputs(self._adapted(inputs[0]), self.text, labels)

    def image_features(self, pixels: Tensor, taps: dict[int, Tensor] | None = None) -> Tensor:
        return self._adapted(super().image_features(pixels, taps))

    def _adapted(self, image: Tensor) -> Tensor:
        """(B, D) -> (B, D), both before L2 normalisation."""
        ratio: float = self.options.ratio
        adapted: Tensor = self.adapter(image)
        return ratio * adapted + (1 - ratio) * image
