"""A device's name -> torch.device, checked. It moves nothing."""

from __future__ import annotations

import torch

from fewclip.errors import OptionError
from fewclip.system.cores import usable_cores


def resolve_device(device: str | torch.device) -> torch.device:
    """'auto' -> the GPU when there is one, else the CPU.

    Raises:
        OptionError: the device is unknown or not available.
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


def limit_threads() -> None:
    """Use no more threads than a container's quota grants; torch counts the machine's cores."""
    if torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())
