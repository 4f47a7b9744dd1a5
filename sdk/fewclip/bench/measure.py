"""The cost of a block of code: wall time and peak memory. It does not care what the block does."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MIB = 2**20


@dataclasses.dataclass
class Cost:
    """Filled in when the measured block ends.

    Attributes:
        seconds: wall time.
        peak_mb: MiB at the peak; 0 if the system does not report it.
        memory: "gpu", what torch allocated there; "process", resident memory with everything
            that is loaded (torch alone is several hundred MiB).
    """

    seconds: float = 0.0
    peak_mb: float = 0.0
    memory: str = "process"


@contextmanager
def measured(device: str) -> Iterator[Cost]:
    """Measure a block on "cpu" or "cuda"."""
    import torch

    cost = Cost(memory="gpu" if device == "cuda" else "process")
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        _forget_peak()
    begin = time.perf_counter()
    yield cost
    if device == "cuda":
        torch.cuda.synchronize()
    cost.seconds = time.perf_counter() - begin
    cost.peak_mb = torch.cuda.max_memory_allocated() / _MIB if device == "cuda" else _process_peak()


def machine(device: str) -> str:
    """Processor, cores and threads in use, or the GPU, for the record of a run."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _forget_peak() -> None:
    """Reset this process's peak memory in the kernel (Linux; elsewhere the old peak stays)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _process_peak() -> float:
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
