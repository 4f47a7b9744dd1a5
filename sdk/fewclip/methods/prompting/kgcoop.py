"""KgCoOp: CoOp held close to the zero-shot text features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fewclip.methods.base import Inputs, Method, MethodOptions, Outputs
from fewclip.methods.prompting.coop import CoOp, CoOpOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class KgCoOpOptions(CoOpOptions):
    """Defaults of the DePT code; the KgCoOp paper has weight 8.

    Attributes:
        kg_weight: of the distance to the zero-shot text features.
    """

    n_ctx: int = 4
    context: str = "a photo of a"
    kg_weight: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.kg_weight >= 0, "kg_weight", "a number >= 0")


class KgCoOp(CoOp):
    """Yao, Zhang, Xu, "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization",
    CVPR 2023, arXiv 2303.13283: cross-entropy + w * (1 - mean cos(t, t0))."""

    name: ClassVar[str] = "kgcoop"
    Options: ClassVar[type[MethodOptions]] = KgCoOpOptions

    @torch.no_grad()
    def setup(self, phrases: Sequence[str]) -> None:
        super().setup(phrases)
        plain = self.backbone.tokenize([Method.prompt(self, phrase) for phrase in phrases])
        self.zero_shot = self.frozen_text_features(plain)

    def regularization_loss(self, outputs: Outputs, inputs: Inputs) -> dict[str, Tensor]:
        near = F.cosine_similarity(outputs.text, self.zero_shot, dim=-1).mean()
        return {"kg": self.options.kg_weight * (1 - near)}
