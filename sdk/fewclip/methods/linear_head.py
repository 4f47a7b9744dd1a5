"""A linear head beside the text's logits, whatever the towers are. Not a method itself.

`frozen_head` fits it to features of frozen towers, `tuned_head` to those of tuned ones. It reads
output features joined with intermediate ones; its numerics are in `fewclip.heads`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewclip.heads import FittedHead, Head, Rows
from fewclip.heads.linear import Floats, Ints
from fewclip.methods.base import Method, MethodOptions
from fewclip.preprocess import AUGMENTATIONS


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearHeadOptions(MethodOptions):
    """Chosen on training photos of five tasks (`docs/concepts/heads.md`).

    Attributes:
        views: augmented views of each training image besides the plain one.
        dept_weight: share of the head in the answer, 0..1; None to choose it out of fold.
    """

    epochs: int = 1
    warmup_epochs: int = 0
    crop_area: float = AUGMENTATIONS["gentle"]["crop_area"]
    flip: bool = AUGMENTATIONS["gentle"]["flip"]
    views: int = 4
    dept_weight: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(isinstance(self.views, int) and self.views >= 0, "views", "a whole number >= 0")
        weight = self.dept_weight
        inside = weight is None or (isinstance(weight, (int, float)) and 0 <= weight <= 1)
        self.check(inside, "dept_weight", "in [0, 1], or None")


class LinearHead(Method):
    """A linear head that is fitted, not trained by the loop; its subclasses say to what, and how.

    Attributes:
        dept_weight: lambda, the head's share; chosen when the head is fitted.
    """

    fits: ClassVar[bool] = True
    dept_ready: ClassVar[bool] = False
    row_dtype: ClassVar[type[np.floating[Any]]] = np.float64

    def build(self, generator: torch.Generator) -> None:
        width = self.backbone.embed_dim + 3 * self.backbone.intermediate_width
        self._set(torch.zeros(self.n_classes, width), torch.zeros(self.n_classes))

    def fit_heads(self, rows: Rows, labels: Ints, images: Ints) -> Sequence[Head]:
        """Heads on (N, L) rows; `labels` (N,), `images` (N,) says which are views of one image."""
        raise NotImplementedError

    def fit_both(self, rows: Rows, labels: Ints, images: Ints) -> Sequence[Head]:
        """`fit_heads` on all features joined, and on the output features alone."""
        width = rows.shape[1]
        output = self.fit_heads(rows.first_columns(self.backbone.embed_dim), labels, images)
        if width == self.backbone.embed_dim:
            return output
        joined = self.fit_heads(rows, labels, images)
        return [*joined, *(widened(head, width) for head in output)]

    def cat_logits(self, image: Tensor, intermediate: Tensor | None = None) -> Tensor:
        """(B, D), (B, 5 w) before normalisation -> (B, n_classes)."""
        parts = [image.float()]
        if self.weight.shape[1] > image.shape[1] and intermediate is not None:
            parts += list(intermediate.float().chunk(5, dim=1))[:3]
        joined = torch.cat(
            [part / part.norm(dim=-1, keepdim=True).clamp_min(1e-12) for part in parts], 1
        )
        return F.linear(joined, self.weight, self.bias)

    def state(self) -> dict[str, Tensor]:
        return {"head.weight": self.weight, "head.bias": self.bias}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._set(state["head.weight"], state["head.bias"])

    def use(self, fitted: FittedHead) -> FittedHead:
        """Make the head this method's own; returns it."""
        self._set(fitted.head.weight, fitted.head.bias)
        self.dept_weight = fitted.weight
        return fitted

    def _set(self, weight: Floats | Tensor, bias: Floats | Tensor) -> None:
        device = self.backbone.device
        self.weight = torch.as_tensor(weight, dtype=torch.float32, device=device)
        self.bias = torch.as_tensor(bias, dtype=torch.float32, device=device)


def widened(head: Head, width: int) -> Head:
    """A head on the first columns, with zero weights added so that it takes (N, `width`) rows."""
    missing = width - head.weight.shape[1]
    return Head(np.pad(head.weight, ((0, 0), (0, missing))), head.bias)
