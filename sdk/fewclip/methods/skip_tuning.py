"""Skip Tuning: full fine-tuning of the upper blocks with shorter and narrower gradient flows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fewclip.backbone import TextHidden
from fewclip.errors import OptionError
from fewclip.methods.base import (
    BatchPlan,
    Inputs,
    Outputs,
    ParamGroup,
    float32_arithmetic,
    tower_parameters,
)
from fewclip.methods.class_blocks import text_in_blocks
from fewclip.methods.tuned_tower import TunedTower, TunedTowerOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkipTuningOptions(TunedTowerOptions):
    """The paper's base-to-new setting, tuned there for ViT-B/16 with OpenAI's weights.

    Attributes:
        omega: first trained block; one number for both towers, or (image, text) where they differ
            in depth; None for half of each tower.
        top_ratio: share of the classes that CSkip always keeps; 1 keeps all, whatever `max_top`.
        max_top: at most this many are always kept.
        lam: scale of the exponential density with which the others are kept.
        image_lr, text_lr: base learning rates of the towers.
        same_class: batches hold images of one class. On a backbone that cannot yet tell a user's
            classes apart, such batches cancel each other out, while mixed ones still learn.
    """

    epochs: int = 20
    image_lr: float = 5e-6
    text_lr: float = 2e-5
    warmup_lr: float = 1e-6
    omega: int | tuple[int, int] | None = None
    top_ratio: float = 0.5
    max_top: int = 50
    lam: float = 0.3
    same_class: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.omega, Sequence):
            object.__setattr__(self, "omega", tuple(self.omega))
        parts = self.omega if isinstance(self.omega, tuple) else (self.omega or 0,) * 2
        self.check(
            len(parts) == 2 and all(isinstance(k, int) and k >= 0 for k in parts),
            "omega",
            "a block number >= 0, or two of them (image, text)",
        )
        self.check(0 < self.top_ratio <= 1, "top_ratio", "in (0, 1]")
        self.check(self.max_top >= 1, "max_top", "a whole number >= 1")
        self.check(self.lam > 0, "lam", "a number > 0")


class SkipTuning(TunedTower):
    """Wu, Zhang, Zeng, Gao, Song, Shen, "Skip Tuning: Pre-trained Vision-Language Models are
    Effective and Efficient Adapters Themselves", CVPR 2025, arXiv 2412.11509.

    LSkip (layer-wise): what enters block omega is frozen, so training starts there. CSkip
    (class-wise): each step compares with the classes nearest to the batch; the mask over the ranks
    is drawn once per run. Two deviations from the official code where it degenerates: a single
    optional rank is kept, and so are the labels of the batch.
    """

    name: ClassVar[str] = "skip-tuning"
    Options: ClassVar[type[TunedTowerOptions]] = SkipTuningOptions

    def build(self, generator: torch.Generator) -> None:
        backbone, options = self.backbone, self.options
        halves = (backbone.image_depth // 2, backbone.text_depth // 2)
        omega = options.omega if options.omega is not None else halves
        pair: tuple[int, int] = (omega, omega) if isinstance(omega, int) else omega
        self.image_from, self.text_from = pair
        if self.image_from >= backbone.image_depth or self.text_from >= backbone.text_depth:
            raise OptionError(
                f"omega is {omega}, but the towers have {backbone.image_depth} (image) and "
                f"{backbone.text_depth} (text) blocks; omega must leave at least one to train"
            )
        uniform = torch.rand(self.n_classes, generator=generator)
        self.mask = class_mask(uniform, options.top_ratio, options.lam, options.max_top)

    @torch.no_grad()
    def setup(self, phrases: Sequence[str]) -> None:
        super().setup(phrases)
        size = max(1, self.backbone.class_tokens_at_once // self.prompts.length)
        classes = torch.arange(len(self.prompts), device=self.backbone.device)
        parts = [
            self.backbone.text_blocks(
                self.backbone.text_embed(self.prompts.select(some)), 0, self.text_from
            )
            for some in torch.split(classes, size)
        ]
        suffix = torch.cat([part.suffix for part in parts], 1)
        self.hidden = TextHidden(parts[0].prefix, suffix, self.prompts.eot)
        self.prototypes = F.normalize(self._text(self.hidden), dim=-1)

    def param_groups(self) -> list[ParamGroup]:
        image, text = tower_parameters(self.backbone, self.image_from, self.text_from)
        return [ParamGroup(text, self.options.text_lr), ParamGroup(image, self.options.image_lr)]

    def batch_plan(self, shots: int) -> BatchPlan:
        size = self.options.batch_size
        return BatchPlan(size, same_class=self.options.same_class and shots >= size)

    def frozen_inputs(self, pixels: Tensor) -> Inputs:
        return (self.backbone.image_blocks(self.backbone.image_embed(pixels), 0, self.image_from),)

    def outputs(self, inputs: Inputs, labels: Tensor) -> Outputs:
        image = self.backbone.image_features(inputs[0], self.image_from)
        kept = sampled_classes(image.detach(), self.prototypes, labels, self.mask)
        text = self._text(self.hidden.select(kept))
        return Outputs(image, text, torch.searchsorted(kept, labels))

    def _text(self, hidden: TextHidden) -> Tensor:
        """What enters the first trained block -> (M, D), for any number of classes."""
        depth = self.backbone.text_depth
        return text_in_blocks(
            lambda part: self.backbone.text_features(part, self.text_from),
            hidden,
            self.backbone.parameters(),
            # The graph begins at `text_from`: half the blocks, twice the tokens.
            self.backbone.class_tokens_at_once * depth // (depth - self.text_from),
        )

    def state(self) -> dict[str, Tensor]:
        return {"class_mask": self.mask.to(torch.uint8)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.mask = state["class_mask"].bool()


def class_mask(uniform: Tensor, top_ratio: float, lam: float, max_top: int) -> Tensor:
    """CSkip's Bernoulli mask over ranks: uniform (M,) draws in [0, 1) -> (M,) bool."""
    m = len(uniform)
    top = m if top_ratio == 1 else min(math.ceil(top_ratio * m), max_top, m)
    keep = torch.ones(m)
    if m - top > 1:
        density = torch.exp(-torch.linspace(0, 5, m - top) / lam) / lam
        keep[top:] = (density - density.min()) / (density.max() - density.min())
    mask = uniform < keep
    mask[:top] = True
    return mask


def sampled_classes(image: Tensor, prototypes: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """CSkip: the classes a batch is compared with, ascending.

    image (B, D) before normalisation, prototypes (M, D) normalised, labels (B,), mask (M,) over
    ranks -> (m,) int64, the batch's labels among them.
    """
    with float32_arithmetic(image.device):
        sim = F.normalize(image.float(), dim=-1) @ prototypes.float().T  # (B, M)
    rows = torch.arange(len(labels), device=labels.device)
    sim[rows, labels] = 2.0  # above every cosine
    ranked = sim.amax(0).argsort(descending=True, stable=True)
    kept: Tensor = torch.unique(torch.cat([ranked[mask.to(ranked.device)], labels]))
    return kept
