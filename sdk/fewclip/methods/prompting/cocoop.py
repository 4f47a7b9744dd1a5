"""CoCoOp: CoOp whose context is shifted by each image: text features depend on the image."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewclip.backbone import ClassPrompts
from fewclip.methods.base import ClassEmbeddings, Inputs, MethodOptions, Outputs
from fewclip.methods.class_blocks import text_in_blocks
from fewclip.methods.prompting.coop import CoOp, CoOpOptions
from fewclip.methods.prompting.prompts import linear

REDUCTION = 16
# At inference, images share a pass of the text tower up to this many class tokens: at most
# 1 GB of activations at the width of ViT-L's text tower, unless a single image needs more.
TOKEN_BUDGET = 2**15


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoCoOpOptions(CoOpOptions):
    """Defaults of the DePT code: one image per step, because each needs its own text pass."""

    batch_size: int = 1
    lr: float = 0.002
    n_ctx: int = 4
    context: str = "a photo of a"


class CoCoOp(CoOp):
    """Zhou, Yang, Loy, Liu, "Conditional Prompt Learning for Vision-Language Models", CVPR 2022,
    arXiv 2203.05557: every context vector is shifted by `net(v / |v|)`, `v` the image feature and
    `net` two small layers. Both towers frozen."""

    name: ClassVar[str] = "cocoop"
    Options: ClassVar[type[MethodOptions]] = CoCoOpOptions
    per_image_text = True

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        backbone = self.backbone
        width = max(backbone.embed_dim // REDUCTION, 1)
        self.meta_net = nn.Sequential(
            linear(backbone.embed_dim, width, backbone, generator),
            nn.ReLU(),
            linear(width, backbone.text_width, backbone, generator),
        )

    def outputs(self, inputs: Inputs, labels: Tensor) -> Outputs:
        return Outputs(inputs[0], self.all_text_per_image(self.prompts, inputs[0]), labels)

    def text_per_image(self, prompts: ClassPrompts, image: Tensor) -> Tensor:
        """Image features (B, D), before normalisation -> text features (B, M, D)."""
        shift = self.meta_net(F.normalize(image, dim=-1))  # (B, w)
        context = self.context + shift[:, None]  # (B, n, w)
        return self.backbone.text_features(self.backbone.text_embed(prompts, context))

    def all_text_per_image(self, prompts: ClassPrompts, image: Tensor) -> Tensor:
        """`text_per_image` of any number of classes, in blocks where they are many."""
        return text_in_blocks(
            functools.partial(self.text_per_image, image=image),
            prompts,
            self.parameters(),
            self.backbone.class_tokens_at_once // max(len(image), 1),
        )

    def text_for(self, embeddings: ClassEmbeddings, image: Tensor) -> Tensor:
        at_once = max(TOKEN_BUDGET // embeddings.prompts.suffix.numel(), 1)
        parts = [
            self.all_text_per_image(embeddings.prompts, rows)
            for rows in torch.split(image, at_once)
        ]
        return torch.cat(parts)

    def text_features(self, prompts: ClassPrompts) -> Tensor:
        raise NotImplementedError("text features depend on the image: see text_per_image")

    def text_from_tokens(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError("text features depend on the image: see text_per_image")
