"""Text features of many classes, block by block: memory stays flat, the numbers stay the same.

The loss needs the features of all classes at once, but not the graph behind them. So features are
computed without a graph, a block of classes at a time, and backward computes each block once more
and passes its rows of the gradient through. The first block keeps its graph, and backward starts
with it. Classes are sorted by length first, so that nothing is computed for padding. A class set
that fits into one block takes the plain path: fifty classes at ViT-B/16 do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fewclip.backbone import ClassPrompts, TextHidden, groups_by_length

Classes = TypeVar("Classes", ClassPrompts, TextHidden)


def text_in_blocks(
    compute: Callable[[Classes], Tensor],
    classes: Classes,
    parameters: Iterable[nn.Parameter],
    tokens_at_once: int,
) -> Tensor:
    """`compute(classes)`, exactly, whatever the number of classes.

    Args:
        compute: a class set or part of it -> (.., M, D).
        classes: in the order of the result.
        parameters: every one that `compute` may pass a gradient to.
        tokens_at_once: class tokens in a block (`Backbone.class_tokens_at_once`).
    """
    if len(classes.eot) * classes.length <= tokens_at_once:
        return compute(classes)
    order = classes.eot.argsort(stable=True)
    lengths = (classes.eot[order] + 1).tolist()
    blocks = _blocks(lengths, tokens_at_once, padded=not groups_by_length(classes.eot.device))
    if len(blocks) == 1:
        return compute(classes)
    parts = [classes.select(order[first:stop], length) for first, stop, length in blocks]
    trained = [p for p in parameters if p.requires_grad]
    if torch.is_grad_enabled() and trained:
        features: Tensor = _Blocks.apply(compute, parts, *trained)
    else:
        features = torch.cat([compute(part) for part in parts], -2)
    return features.index_select(-2, order.argsort())


def _blocks(lengths: Sequence[int], tokens: int, *, padded: bool) -> list[tuple[int, int, int]]:
    """(first, stop, longest) over ascending lengths; a block has `tokens`, or a single class.

    The last one may have an eighth more: an extra block would read all weights again.

    Args:
        padded: whether classes are computed to the length of the longest of their block.
    """
    found: list[tuple[int, int, int]] = []
    first, end = 0, len(lengths)
    before = [0, *itertools.accumulate(lengths)]

    def size(stop: int) -> int:
        longest = (stop - first) * lengths[stop - 1]
        return longest if padded else before[stop] - before[first]

    for stop in range(1, end + 1):
        if stop < end and size(end) <= tokens + tokens // 8:
            continue
        if stop == end or size(stop + 1) > tokens:
            found.append((first, stop, lengths[stop - 1]))
            first = stop
    return found


class _Blocks(torch.autograd.Function):
    """Features with the graphs of the first blocks; backward rebuilds the others' one by one."""

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[[Any], Tensor], parts: list[Any], *parameters: nn.Parameter
    ) -> Tensor:
        ctx.compute, ctx.parts, ctx.parameters = compute, parts, parameters
        device = parameters[0].device.type
        ctx.autocast = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
        }
        # First, because autocast keeps its bf16 copies of parameters, and a copy made without a
        # graph would pass no gradient.
        with torch.enable_grad():
            ctx.kept = [compute(parts[0])]
        others = [compute(part) for part in parts[1:]]
        return torch.cat([ctx.kept[0].detach(), *others], -2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        totals: list[Tensor | None] = [None] * len(ctx.parameters)
        first = 0
        with torch.autocast(**ctx.autocast):  # around all blocks: parameters are converted once
            for part in ctx.parts:
                stop = first + len(part.eot)
                with torch.enable_grad():
                    features = ctx.kept.pop(0) if ctx.kept else ctx.compute(part)
                rows = gradient[..., first:stop, :]
                with torch.autocast(ctx.autocast["device_type"], enabled=False):
                    found = torch.autograd.grad(features, ctx.parameters, rows, allow_unused=True)
                totals = [_add(total, new) for total, new in zip(totals, found, strict=True)]
                first = stop
        return None, None, *totals


def _add(total: Tensor | None, new: Tensor | None) -> Tensor | None:
    if total is None or new is None:
        return new if total is None else total
    return total.add_(new)
