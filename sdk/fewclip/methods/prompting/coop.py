"""CoOp: learned context vectors in front of every class name, shared by all classes."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from fewclip.backbone import ClassPrompts
from fewclip.methods.base import Inputs, Method, MethodOptions, Outputs
from fewclip.methods.prompting.prompts import init_context


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoOpOptions(MethodOptions):
    """Defaults of the DePT code's runs.

    Attributes:
        lr: base learning rate.
        n_ctx: number of context vectors; ignored with `context`, whose tokens are counted instead.
        context: words whose embeddings the context starts from; empty for a random start.
    """

    lr: float = 0.0035
    n_ctx: int = 16
    context: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(isinstance(self.n_ctx, int) and self.n_ctx >= 1, "n_ctx", "a whole number >= 1")


class CoOp(Method):
    """Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models", IJCV 2022,
    arXiv 2109.01134. Prompt: `[SOS] context NAME . [EOT]`; both towers frozen."""

    name: ClassVar[str] = "coop"
    Options: ClassVar[type[MethodOptions]] = CoOpOptions
    frozen_images: bool = True

    def build(self, generator: torch.Generator) -> None:
        options = self.options
        self.context = init_context(self.backbone, options.n_ctx, options.context, generator)

    def prompt(self, phrase: str) -> str:
        """Each `X` is a placeholder for a context vector."""
        return "X " * len(self.context) + phrase + "."

    def outputs(self, inputs: Inputs, labels: Tensor) -> Outputs:
        return Outputs(inputs[0], self.all_text_features(self.prompts), labels)

    def text_features(self, prompts: ClassPrompts) -> Tensor:
        return self.backbone.text_features(self.backbone.text_embed(prompts, self.context))

    def text_from_tokens(self, tokens: Tensor) -> Tensor:
        return self.backbone.encode_tokens(tokens, self.context)
