"""How many threads a process may really use: the one rule for torch, ONNX Runtime and decoding.

No torch. Sharing two cores with other programs is no reason to use one thread only: threads that
sleep while they wait lose less by it than threads that spin (4 to 6 times on a busy machine), so
importing fewclip asks OpenMP, which torch computes with, for sleeping ones.
"""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path


def wait_asleep() -> None:
    """Let waiting OpenMP threads sleep, unless the user has set it; call before importing torch."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@functools.cache
def usable_cores() -> int:
    """Physical cores that this process may use: affinity and the container's quota respected.

    ONNX Runtime by itself counts the machine's cores, and that many threads in a container that
    is limited to two take turns instead of working.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = affinity(0) if affinity else range(os.cpu_count() or 1)
    # Hyper-threads of one core list the same siblings.
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = len({_read(siblings.format(n)) or str(n) for n in cpus})
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    granted = math.ceil(int(quota) / int(period)) if quota.isdigit() and period else cores
    return max(1, min(cores, granted))


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
