"""One residual attention block, in parts that can be run separately. No towers here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def heads(x: Tensor, attn: nn.MultiheadAttention) -> Tensor:
    b, t, w = x.shape
    return x.reshape(b, t, attn.num_heads, w // attn.num_heads).transpose(1, 2)  # (B, h, T, w/h)


def project(attn: nn.MultiheadAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, w) -> queries, keys, values (B, heads, T, w / heads)."""
    q, k, v = F.linear(x, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    return heads(q, attn), heads(k, attn), heads(v, attn)


def project_queries(attn: nn.MultiheadAttention, x: Tensor) -> Tensor:
    w = x.shape[-1]
    return heads(F.linear(x, attn.in_proj_weight[:w], attn.in_proj_bias[:w]), attn)


def project_keys(attn: nn.MultiheadAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    w = x.shape[-1]
    k, v = F.linear(x, attn.in_proj_weight[w:], attn.in_proj_bias[w:]).chunk(2, dim=-1)
    return heads(k, attn), heads(v, attn)


def attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """Attention of all heads, (B, heads, T, w / heads) like q; float32 on a CPU even if the matmuls
    around it are bf16: there bf16's backward is slower than float32's, and so is its forward with
    a mask."""
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            q, k, v = q.float(), k.float(), v.float()
            return F.scaled_dot_product_attention(q, k, v, **options)
    return F.scaled_dot_product_attention(q, k, v, **options)


def finish(block: Any, x: Tensor, mixed: Tensor) -> Tensor:
    """Residual, MLP, residual: x (B, T, w), mixed (B, heads, T, w / heads) from attention."""
    return finish_rows(block, x, mixed.transpose(1, 2).reshape(x.shape))


def finish_rows(block: Any, x: Tensor, mixed: Tensor) -> Tensor:
    """`finish` with the heads of `mixed` already concatenated: (B, T, w), like x."""
    x = x + block.ls_1(block.attn.out_proj(mixed))
    out: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return out


def run_rows(block: Any, x: Tensor, *, causal: bool = False) -> Tensor:
    q, k, v = project(block.attn, block.ln_1(x))
    return finish(block, x, attend(q, k, v, is_causal=causal))


def run_one_row(block: Any, x: Tensor) -> Tensor:
    """The block's output for row 0 only: (B, T, w) -> (B, 1, w)."""
    normed = block.ln_1(x)
    k, v = project_keys(block.attn, normed)
    q = project_queries(block.attn, normed[:, :1])
    return finish(block, x[:, :1], attend(q, k, v))


def join(shared: Tensor, own: Tensor, m: int) -> Tensor:
    """Prefix keys (G, p, w) in front of each class's own (G*M, t, w): (G*M, p + t, w)."""
    g, p, w = shared.shape
    spread = shared[:, None].expand(g, m, p, w).reshape(g * m, p, w)
    return torch.cat([spread, own], 1)


def suffix_mask(t: int, p: int, device: torch.device) -> Tensor:
    """(t, p + t) bool: a suffix row sees the whole prefix and the suffix up to itself."""
    rows = torch.arange(t, device=device)[:, None] + p
    return torch.arange(p + t, device=device)[None] <= rows


def run_after_prefix(
    block: Any, prefix: Tensor, suffixes: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """A causal block on a prefix (G, p, w) and on groups of suffixes that follow it, (G, M, t, w).

    All go through each matmul together: for a few rows alone, reading the weights would take longer
    than multiplying by them.
    """
    p, w = prefix.shape[1:]
    attn, parts = block.attn, [prefix, *(x.flatten(0, 1) for x in suffixes)]  # (B, T, w)
    rows = torch.cat([x.reshape(-1, w) for x in parts])
    projected = F.linear(block.ln_1(rows), attn.in_proj_weight, attn.in_proj_bias)
    (q_p, k_p, v_p), *others = (y.chunk(3, dim=-1) for y in _split_like(projected, parts))
    mixed = [attend(heads(q_p, attn), heads(k_p, attn), heads(v_p, attn), is_causal=True)]
    for (q, k, v), x in zip(others, suffixes, strict=True):
        m, t = x.shape[1:3]
        qkv = (heads(y, attn) for y in (q, join(k_p, k, m), join(v_p, v, m)))
        mixed.append(attend(*qkv, attn_mask=suffix_mask(t, p, x.device)))
    joined = torch.cat([y.transpose(1, 2).reshape(-1, w) for y in mixed])
    new, *rest = _split_like(finish_rows(block, rows, joined), parts)
    return new, [y.view(x.shape) for x, y in zip(suffixes, rest, strict=True)]


def run_ends_after_prefix(
    block: Any, prefix: Tensor, suffixes: Sequence[Tensor], ends: Sequence[Tensor]
) -> Tensor:
    """`run_after_prefix` for row `ends` (M,) of each suffix only: (G, M of all groups, w)."""
    g, p, w = prefix.shape
    attn, parts = block.attn, [prefix, *(x.flatten(0, 1) for x in suffixes)]
    normed = block.ln_1(torch.cat([x.reshape(-1, w) for x in parts]))
    projected = F.linear(normed, attn.in_proj_weight[w:], attn.in_proj_bias[w:])
    (k_p, v_p), *others = (y.chunk(2, dim=-1) for y in _split_like(projected, parts))
    rows = torch.cat([_rows_at(x, end) for x, end in zip(suffixes, ends, strict=True)], 1)
    queries = F.linear(block.ln_1(rows), attn.in_proj_weight[:w], attn.in_proj_bias[:w])
    mixed = []
    each = torch.split(queries, [len(end) for end in ends], 1)
    for q, (k, v), end in zip(each, others, ends, strict=True):
        m, seen = len(end), torch.arange(p + k.shape[1], device=end.device) - p
        mask = (seen <= end[:, None]).repeat(g, 1)[:, None, None]  # (G*M, 1, 1, p + t)
        qkv = (q.reshape(g * m, 1, w), join(k_p, k, m), join(v_p, v, m))
        found = attend(*(heads(y, attn) for y in qkv), attn_mask=mask)
        mixed.append(found.transpose(1, 2).reshape(g, m, w))
    return finish_rows(block, rows, torch.cat(mixed, 1))


def _split_like(rows: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """(R, n) -> (B, T, n) for each of the parts (B, T, w), whose rows they are."""
    split = torch.split(rows, [x.shape[0] * x.shape[1] for x in parts])
    return [y.view(*x.shape[:2], y.shape[1]) for x, y in zip(parts, split, strict=True)]


def _rows_at(x: Tensor, at: Tensor) -> Tensor:
    """(G, M, t, w), (M,) -> (G, M, w)."""
    return x[:, torch.arange(len(at), device=at.device), at]


def overwrite_context(x: Tensor, context: Tensor) -> Tensor:
    """Positions 1..n of (G or 1, T, w) replaced by context (n, w) or (G, n, w)."""
    context = context if context.dim() == 3 else context.expand(x.shape[0], -1, -1)
    g, n = context.shape[:2]
    x = x.expand(g, -1, -1)
    return torch.cat([x[:, :1], context.to(x.dtype), x[:, 1 + n :]], 1)


def deep_context(x: Tensor, k: int, deep: Sequence[Tensor]) -> Tensor:
    return overwrite_context(x, deep[k - 1]) if 1 <= k <= len(deep) else x


def overwrite_last(x: Tensor, k: int, deep: Sequence[Tensor]) -> Tensor:
    if not 1 <= k <= len(deep):
        return x
    new = deep[k - 1].expand(x.shape[0], -1, -1)
    return torch.cat([x[:, : -new.shape[1]], new.to(x.dtype)], 1)
