"""DePT: a linear classifier of the base classes beside a prompt or adapter method's own loss."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewclip.errors import OptionError

NEW_LR_MULTIPLIER = 6.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DePTOptions:
    """Defaults of the DePT code.

    Attributes:
        dept_weight: lambda, the head's share of loss and answer, 0..1.
        dept_lr: learning rate of transforms and classifier; None for 6.5 times the method's.
    """

    dept_weight: float = 0.7
    dept_lr: float | None = None

    def __post_init__(self) -> None:
        weight, rate = self.dept_weight, self.dept_lr
        if not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
            raise OptionError(f"option dept_weight must be in [0, 1], got {weight!r}")
        if rate is not None and (not isinstance(rate, (int, float)) or not 0 <= rate < math.inf):
            raise OptionError(f"option dept_lr must be a number >= 0, or None; got {rate!r}")
        object.__setattr__(self, "dept_weight", float(weight))
        object.__setattr__(self, "dept_lr", None if rate is None else float(rate))


class DePTHead(nn.Module):
    """Zhang, Wu, Gao, Shen, Song, "DePT: Decoupled Prompt Tuning", CVPR 2024, arXiv 2309.07439.

    A channel-wise adjusted linear classifier (CAT head) absorbs what is specific to the base
    classes, so the prompts (ITM head) keep what new classes share. Loss
    `(1 - lambda) * L_ITM + lambda * L_CAT` plus the method's regularization_loss, unscaled.

    Args:
        options: lambda and the head's learning rate.
        width: D, of image and text features before L2 normalisation.
        n_classes: M, the classes of the training set.
        generator: for the linear classifier's initial values (uniform in +-1/sqrt(D)).
        device: of the parameters.
    """

    def __init__(
        self,
        options: DePTOptions,
        *,
        width: int,
        n_classes: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.options = options
        bound = width**-0.5
        start = [torch.ones(width), torch.zeros(width), torch.ones(width), torch.zeros(width)]
        start += [
            (2 * torch.rand(shape, generator=generator) - 1) * bound
            for shape in ((n_classes, width), (n_classes,))
        ]
        (
            self.image_gamma,
            self.image_beta,
            self.text_gamma,
            self.text_beta,
            self.weight,
            self.bias,
        ) = (nn.Parameter(x.to(device)) for x in start)

    def learning_rate(self, method_lr: float) -> float:
        """The head's own, or a multiple of its method's."""
        rate = self.options.dept_lr
        return NEW_LR_MULTIPLIER * method_lr if rate is None else rate

    def loss_terms(
        self, itm: Tensor, image: Tensor, text: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Weighted terms: `itm`, the method's own cross-entropy, and this head's.

        image (B, D), text (M, D) or (B, M, D), both before L2 normalisation, labels (B,).
        """
        rows = torch.arange(len(labels), device=labels.device)
        own = text[rows, labels] if text.dim() == 3 else text[labels]
        cat = torch.cat([self.text_gamma * own + self.text_beta, self._adjusted(image)])
        cat_logits = F.linear(cat, self.weight, self.bias)  # (2B, M)
        weight = self.options.dept_weight
        return {
            "itm": (1 - weight) * itm,
            "cat": weight * F.cross_entropy(cat_logits, torch.cat([labels] * 2)),
        }

    def forward(self, image: Tensor) -> Tensor:
        """Image features (B, D) before L2 normalisation -> logits (B, M)."""
        return F.linear(self._adjusted(image), self.weight, self.bias)

    def _adjusted(self, image: Tensor) -> Tensor:
        return self.image_gamma * image + self.image_beta
