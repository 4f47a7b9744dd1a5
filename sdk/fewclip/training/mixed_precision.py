"""Which precision a run uses: decided by the hardware's flags, never by timing. No training.

bf16 means autocast: parameters, losses, CSkip's ranking and, on a CPU, attention stay in float32.
The frozen text tower has its matrices in bf16 while training lasts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewclip.backbone import Backbone
from fewclip.errors import OptionError

PRECISIONS = ("auto", "fp32", "bf16")
# Narrower image towers gain little from bf16 on a CPU: converting costs most of what it saves.
WIDTH = 512


def resolve_precision(precision: str, device: torch.device, width: int) -> str:
    """'auto' -> 'bf16' where the hardware multiplies it faster than float32, else 'fp32'.

    Args:
        width: of the image tower.

    Raises:
        OptionError: an unknown precision.
    """
    if check_precision(precision) != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    fast = device.type == "cpu" and width >= WIDTH and fast_bf16(torch.cpu.get_capabilities())
    return "bf16" if fast else "fp32"


def check_precision(precision: str) -> str:
    """The precision itself.

    Raises:
        OptionError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision must be 'auto', 'fp32' or 'bf16', got {precision!r}")
    return precision


def fast_bf16(capabilities: Mapping[str, Any], vendor: str | None = None) -> bool:
    """Whether a CPU multiplies bf16 faster than float32: AMX does, AVX512-BF16 on AMD's does.

    Measured on one core at the towers' shapes: 160 to 205 against 65 to 95 GFLOP/s on an AMD EPYC.
    On Intel's, AVX512-BF16 without AMX (as many virtual machines offer it) has half the rate of
    float32: 80 against 145 GFLOP/s on a Xeon.
    """
    if capabilities.get("amx_bf16"):
        return True
    name = _vendor() if vendor is None else vendor
    return bool(capabilities.get("avx512_bf16")) and "AMD" in name


def _vendor() -> str:
    """The CPU's maker as Linux names it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("vendor_id")), "")


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bf16 arithmetic with float32 parameters, or nothing at all."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextlib.contextmanager
def frozen_text_in_bf16(backbone: Backbone, precision: str) -> Iterator[None]:
    """Hold a frozen text tower's matrices in bf16; on exit they are exactly what they were before.

    Autocast converts a weight that needs no gradient whenever it is read, and every block of
    classes reads all of them. The image tower's are read once for many rows, which costs little,
    and so are those below a trained block, whose hidden states are kept.

    Args:
        backbone: its trained parameters must require gradients already.
    """
    matrices: list[Tensor] = []
    if precision == "bf16" and backbone.has_blocks:
        blocks = list(backbone.clip.transformer.resblocks.parameters())
        if not any(p.requires_grad for p in blocks):
            matrices = [p for p in blocks if p.dim() == 2]
    originals = [matrix.data for matrix in matrices]
    try:
        for matrix, original in zip(matrices, originals, strict=True):
            matrix.data = original.bfloat16()
        yield
    finally:
        for matrix, original in zip(matrices, originals, strict=True):
            matrix.data = original
