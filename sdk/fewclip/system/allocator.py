"""How memory is asked of the system and given back: what the C library and torch can be told.

No torch here. A step of training frees nearly all it allocated, and the next one asks for it again.
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
    """Let torch ask for pages of 2 MiB where the system grants them to those who ask.

    Skip Tuning's step at ViT-B/16 met 100,000 page faults, which took 4 to 7 % of its time.
    Must run before torch allocates, and leaves a choice that was made alone.
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

    glibc raises that threshold by itself, to 32 MiB, and what then is between freed activations
    keeps them from being given back: training ViT-B/16 took 30 to 90 MB more. Of the smaller
    blocks up to `KEPT` bytes stay with the process instead of going back and forth at every step.

    Returns:
        False where the allocator is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl, for one
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGE) and mallopt(_TRIM_THRESHOLD, KEPT))
