"""MaPLe: prompts in both towers at several blocks, the image tower's projected from the text's."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor, nn

from fewclip.backbone import ClassPrompts
from fewclip.errors import OptionError
from fewclip.methods.base import Inputs, MethodOptions, Outputs
from fewclip.methods.prompting.coop import CoOp, CoOpOptions
from fewclip.methods.prompting.prompts import (
    DeepOptions,
    deep_prompts,
    linear,
    prompted_image_features,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaPLeOptions(DeepOptions, CoOpOptions):
    """Defaults of the DePT code's base-to-new runs.

    Attributes:
        n_ctx: learned vectors per level and tower; the first `n_ctx` tokens of `context` are
            learned, and the rest of it stays as words.
    """

    n_ctx: int = 2
    context: str = "a photo of a"


class MaPLe(CoOp):
    """Khattak, Rasheed, Maaz, Khan, Khan, "MaPLe: Multi-modal Prompt Learning", CVPR 2023,
    arXiv 2210.03117.

    Level 0 is the text context, levels `1 .. depth-1` overwrite its positions at those blocks. Each
    level has a linear map to the image tower's prompts of that level. Both towers frozen.
    """

    name: ClassVar[str] = "maple"
    Options: ClassVar[type[MethodOptions]] = MaPLeOptions
    trains_images = True
    frozen_images: bool = False

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        backbone, options = self.backbone, self.options
        n = options.n_ctx
        if n > len(self.context):
            raise OptionError(
                f"option n_ctx is {n}, but the context {options.context!r} has only "
                f"{len(self.context)} tokens; give more words, or context='' for a random start"
            )
        self.context = nn.Parameter(self.context.detach()[:n].clone())
        image_depth, self.text_depth = options.depths(backbone)
        deeper = max(image_depth, self.text_depth) - 1
        self.text_prompts = deep_prompts(deeper, n, backbone.text_width, backbone, generator)
        self.projections = nn.ModuleList(
            linear(backbone.text_width, backbone.image_width, backbone, generator)
            for _ in range(image_depth)
        )

    def prompt(self, phrase: str) -> str:
        """The context's words are placeholders for learned vectors; the rest of them stay words."""
        words = self.options.context
        return f"{words} {phrase}." if words else super().prompt(phrase)

    def frozen_inputs(self, pixels: Tensor) -> Inputs:
        return (self.backbone.image_embed(pixels),)

    def outputs(self, inputs: Inputs, labels: Tensor) -> Outputs:
        return Outputs(self._prompted(inputs[0]), self.all_text_features(self.prompts), labels)

    def image_features(self, pixels: Tensor, taps: dict[int, Tensor] | None = None) -> Tensor:
        return self._prompted(self.backbone.image_embed(pixels), taps)

    def text_features(self, prompts: ClassPrompts) -> Tensor:
        hidden = self.backbone.text_embed(prompts, self.context)
        return self.backbone.text_features(hidden, deep=self._deep_text())

    def text_from_tokens(self, tokens: Tensor) -> Tensor:
        return self.backbone.encode_tokens(tokens, self.context, self._deep_text())

    def _deep_text(self) -> list[Tensor]:
        return list(self.text_prompts)[: self.text_depth - 1]

    def _prompted(self, embedded: Tensor, taps: dict[int, Tensor] | None = None) -> Tensor:
        text = [self.context, *self.text_prompts]
        image = [project(text[k]) for k, project in enumerate(self.projections)]
        return prompted_image_features(self.backbone, embedded, image, taps)
