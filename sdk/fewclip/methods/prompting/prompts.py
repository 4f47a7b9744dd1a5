"""Learned prompts and small nets: how they start and where they go. No method, no towers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewclip.backbone import Backbone
from fewclip.methods.base import MethodOptions

INIT_STD = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepOptions(MethodOptions):
    """Options of methods with prompts at several blocks.

    Attributes:
        depth: prompts are inputs of blocks 0 .. depth-1; one number for both towers, or
            (image, text). A tower with fewer blocks has them at all of its blocks.
    """

    depth: int | tuple[int, int] = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.depth, Sequence):
            object.__setattr__(self, "depth", tuple(self.depth))
        parts = self.depth if isinstance(self.depth, tuple) else (self.depth, self.depth)
        self.check(
            len(parts) == 2 and all(isinstance(k, int) and k >= 1 for k in parts),
            "depth",
            "a number of blocks >= 1, or two of them (image, text)",
        )

    def depths(self, backbone: Backbone) -> tuple[int, int]:
        """(image, text), capped to what the towers have."""
        image, text = self.depth if isinstance(self.depth, tuple) else (self.depth, self.depth)
        return min(image, backbone.image_depth), min(text, backbone.text_depth)


def random_vectors(n: int, width: int, backbone: Backbone, generator: torch.Generator) -> Tensor:
    """(n, width) normal with std 0.02, on the backbone's device."""
    return (INIT_STD * torch.randn(n, width, generator=generator)).to(backbone.device)


def init_context(
    backbone: Backbone, n_ctx: int, words: str, generator: torch.Generator
) -> nn.Parameter:
    """(n, w) context vectors: the embeddings of `words`, or random with std 0.02."""
    if words:
        return nn.Parameter(backbone.embed_words(words).clone())
    return nn.Parameter(random_vectors(n_ctx, backbone.text_width, backbone, generator))


def deep_prompts(
    count: int, n: int, width: int, backbone: Backbone, generator: torch.Generator
) -> nn.ParameterList:
    """`count` levels of (n, width) vectors, random with std 0.02."""
    vectors = (random_vectors(n, width, backbone, generator) for _ in range(count))
    return nn.ParameterList(nn.Parameter(v) for v in vectors)


def linear(
    inputs: int,
    outputs: int,
    backbone: Backbone,
    generator: torch.Generator,
    *,
    bias: bool = True,
) -> nn.Linear:
    """torch's own initial values, uniform in +-1/sqrt(inputs), but from the run's generator."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            uniform = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((2 * uniform - 1) * inputs**-0.5)
    return layer.to(backbone.device)


def prompted_image_features(
    backbone: Backbone,
    embedded: Tensor,
    prompts: Sequence[Tensor],
    taps: dict[int, Tensor] | None = None,
) -> Tensor:
    """What enters block 0, (B, T, w), with `prompts[k]` (n, w) at block k -> (B, D)."""
    return backbone.image_features(
        backbone.append_image_prompts(embedded, prompts[0]), deep=prompts[1:], taps=taps
    )
