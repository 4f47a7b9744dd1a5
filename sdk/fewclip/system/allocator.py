"""Large blocks of memory go back to the system as soon as they are freed. No torch here."""

from __future__ import annotations

import ctypes
import functools
import sys

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
LARGE = 4 * 2**20  # bytes


@functools.cache
def return_large_blocks() -> bool:
    """Give blocks of `LARGE` bytes and more mappings of their own, for this process.

    glibc raises that threshold by itself, to 32 MiB, and what then is between freed activations
    keeps them from being given back: training ViT-B/16 took 30 to 90 MB more.

    Returns:
        False where the allocator is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl, for one
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGE))
