"""How memory is requested from the system and returned: settings of the C library and of torch.

No torch here. A training step frees nearly all it allocated, and the next one asks for it again.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGE = 4 * 2**20  # bytes
KEPT = 64 * 2**20  # bytes
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def ask_for_huge_pages() -> None:
    """Let torch ask for pages of 2 MiB where the system grants them on request.

    Skip Tuning's step at ViT-B/16 met 100,000 page faults, which took 4 to 7 % of its time.
    Must run before torch allocates, and keeps a setting that the user has made.
    """
    try:
        granted = "[madvise]" in HUGE_PAGES.read_text()
    except OSError:  # not Linux, or a kernel without them, where torch would warn
        return
    if granted:
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@functools.cache
def return_large_blocks() -> bool:
    """Give blocks of `LARGE` bytes and more mappings of their own, for this process.

    glibc raises that threshold by itself, to 32 MiB, and then live blocks between freed activations
    keep those from being returned: training ViT-B/16 took 30 to 90 MB more. Up to `KEPT` bytes of
    smaller blocks stay with the process instead of going back and forth at every step.

    Returns:
        False if the allocator is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl, for one
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGE) and mallopt(_TRIM_THRESHOLD, KEPT))
