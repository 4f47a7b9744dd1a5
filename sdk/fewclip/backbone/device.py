"""A device's name -> torch.device, checked. It moves nothing."""

from __future__ import annotations

import torch

from fewclip.errors import OptionError


def resolve_device(device: str | torch.device) -> torch.device:
    """'auto' -> the GPU when there is one, else the CPU.

    Raises:
        OptionError: a device that is unknown or not there.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise OptionError(f"unknown device {device!r}; use 'auto', 'cpu' or 'cuda'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise OptionError("device 'cuda' was asked for, but torch sees no GPU; use 'cpu' or 'auto'")
    return found
