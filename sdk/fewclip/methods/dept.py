"""DePT on top of any prompt or adapter method; it does not know which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewclip.backbone import ClassPrompts
from fewclip.methods.base import (
    BatchPlan,
    ClassEmbeddings,
    Inputs,
    Method,
    Outputs,
    ParamGroup,
    cosine_logits,
)

NEW_LR_MULTIPLIER = 6.5


class DePT(Method):
    """Zhang, Wu, Gao, Shen, Song, "DePT: Decoupled Prompt Tuning", CVPR 2024, arXiv 2309.07439.

    A channel-wise adjusted linear classifier (CAT head) takes up what is specific to the base
    classes, so that the prompts (ITM head) keep what new classes share. Loss
    `(1 - lambda) * L_ITM + lambda * L_CAT` plus the wrapped method's regularization_loss, unscaled.

    Args:
        inner: the wrapped method; it is trained along.
        dept_weight: lambda.
        dept_lr: learning rate of transforms and classifier; None for 6.5 times the method's.
        generator: for the linear classifier's start (uniform in +-1/sqrt(D)).
    """

    name: ClassVar[str] = "dept"
    dept_ready: ClassVar[bool] = False

    def __init__(
        self,
        inner: Method,
        dept_weight: float,
        generator: torch.Generator,
        *,
        dept_lr: float | None = None,
    ) -> None:
        super().__init__(
            inner.backbone,
            inner.options,
            template=inner.template,
            n_classes=inner.n_classes,
            generator=generator,
        )
        self.inner = inner
        self.dept_lr = dept_lr
        self.per_image_text = inner.per_image_text
        self.frozen_images = inner.frozen_images
        self.dept_weight: float = dept_weight
        self.trains_images = inner.trains_images
        d, m = inner.backbone.embed_dim, inner.n_classes
        bound = d**-0.5
        start = [torch.ones(d), torch.zeros(d), torch.ones(d), torch.zeros(d)]
        start += [(2 * torch.rand(s, generator=generator) - 1) * bound for s in ((m, d), (m,))]
        (
            self.image_gamma,
            self.image_beta,
            self.text_gamma,
            self.text_beta,
            self.weight,
            self.bias,
        ) = (nn.Parameter(x.to(inner.backbone.device)) for x in start)
        inner.train_along(self._own_group().params)

    def setup(self, phrases: Sequence[str]) -> None:
        self.inner.setup(phrases)

    def param_groups(self) -> list[ParamGroup]:
        return [*self.inner.param_groups(), self._own_group()]

    def _own_group(self) -> ParamGroup:
        names = ("image_gamma", "image_beta", "text_gamma", "text_beta", "weight", "bias")
        own = {f"dept.{name}": getattr(self, name) for name in names}
        rate = NEW_LR_MULTIPLIER * self.options.lr if self.dept_lr is None else self.dept_lr
        return ParamGroup(own, rate)

    def batch_plan(self, shots: int) -> BatchPlan:
        return self.inner.batch_plan(shots)

    def frozen_inputs(self, pixels: Tensor) -> Inputs:
        return self.inner.frozen_inputs(pixels)

    def outputs(self, inputs: Inputs, labels: Tensor) -> Outputs:
        return self.inner.outputs(inputs, labels)

    def loss_terms(self, outputs: Outputs, inputs: Inputs) -> dict[str, Tensor]:
        logits = cosine_logits(outputs.image, outputs.text, self.backbone.logit_scale)
        rows = torch.arange(len(outputs.labels), device=outputs.labels.device)
        own = (
            outputs.text[rows, outputs.labels]
            if outputs.text.dim() == 3
            else outputs.text[outputs.labels]
        )
        cat = torch.cat([self.text_gamma * own + self.text_beta, self._image_rows(outputs.image)])
        cat_logits = F.linear(cat, self.weight, self.bias)  # (2B, M)
        return {
            "itm": (1 - self.dept_weight) * F.cross_entropy(logits, outputs.labels),
            "cat": self.dept_weight * F.cross_entropy(cat_logits, torch.cat([outputs.labels] * 2)),
            **self.inner.regularization_loss(outputs, inputs),
        }

    def after_epoch(self, epoch: int, epochs: int) -> None:
        self.inner.after_epoch(epoch, epochs)

    def state(self) -> dict[str, Tensor]:
        return self.inner.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.inner.load_state(state)

    def prompt(self, phrase: str) -> str:
        return self.inner.prompt(phrase)

    def image_features(self, pixels: Tensor, taps: dict[int, Tensor] | None = None) -> Tensor:
        return self.inner.image_features(pixels, taps)

    def text_features(self, prompts: ClassPrompts) -> Tensor:
        return self.inner.text_features(prompts)

    def text_from_tokens(self, tokens: Tensor) -> Tensor:
        return self.inner.text_from_tokens(tokens)

    def class_embeddings(self, phrases: Sequence[str]) -> ClassEmbeddings:
        return self.inner.class_embeddings(phrases)

    def text_for(self, embeddings: ClassEmbeddings, image: Tensor) -> Tensor:
        return self.inner.text_for(embeddings, image)

    def cat_logits(self, image: Tensor, intermediate: Tensor | None = None) -> Tensor:
        return F.linear(self._image_rows(image), self.weight, self.bias)

    def _image_rows(self, image: Tensor) -> Tensor:
        return self.image_gamma * image + self.image_beta
