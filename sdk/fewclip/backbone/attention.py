"""Attention probabilities of a forward pass, with gradient. Towers and results stay the same.

The towers use a fused kernel that keeps no probabilities. Within `AttentionMaps` the same towers,
prompts of any method included, compute them explicitly; outside it nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class AttentionMaps(TorchFunctionMode):
    """Records each scaled dot-product attention that runs within `with AttentionMaps() as maps:`.

    Attributes:
        probabilities: one (B, heads, queries, keys) per call, in order; part of the autograd graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probabilities: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        output, probabilities = explicit_attention(*args, **(kwargs or {}))
        self.probabilities.append(probabilities)
        return output


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """`F.scaled_dot_product_attention` and its probabilities (..., queries, keys).

    Args:
        attn_mask: bool, True where a key may be attended to.
        dropout_p: 0, as in inference.
    """
    assert dropout_p == 0.0
    logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -math.inf)
    probabilities = logits.softmax(-1)
    return probabilities @ value, probabilities


def cls_relevance(
    probabilities: Sequence[Tensor], gradients: Sequence[Tensor], patches: int
) -> Tensor:
    """What each patch token contributed to the CLS token's output: (B, patches), >= 0.

    Chefer, Gur, Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers", ICCV 2021, arXiv 2103.15679, equations 5 and 6 for
    self-attention: `R <- R + mean_heads(relu(gradient * attention)) R`, block by block. Only the
    CLS row of R is read, so it is computed from the last block down, as a vector.

    Args:
        probabilities: (B, heads, T, T) of each block, in order; the last may hold its CLS row
            only, (B, heads, 1, T).
        gradients: of the explained score with respect to those, same shapes.
        patches: tokens 1 to `patches` are patches; prompts that come after them are left out.
    """
    first = probabilities[0]
    row = first.new_zeros(first.shape[0], first.shape[-1])  # (B, T)
    row[:, 0] = 1
    for attention, gradient in zip(reversed(probabilities), reversed(gradients), strict=True):
        relevant = (gradient * attention).clamp(min=0).mean(1)  # (B, T or 1, T)
        row = row + torch.einsum("bq,bqk->bk", row[:, : relevant.shape[1]], relevant)
    return row[:, 1 : 1 + patches]
