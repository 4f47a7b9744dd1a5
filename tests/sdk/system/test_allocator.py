"""Freed blocks go back to the system while the process goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import ctypes, sys
from fewclip.system.allocator import LARGE, return_large_blocks
sys.argv[1] == "on" and return_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(30 * 2**20))  # which raises glibc's own threshold
blocks = [(libc.malloc(2 * LARGE), libc.malloc(2**20)) for _ in range(16)]
for large, _ in blocks:
    ctypes.memset(large, 1, 2 * LARGE)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
for large, _ in blocks:
    libc.free(large)
print((before - resident()) // LARGE)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own setting")
def test_blocks_between_small_ones_are_given_back() -> None:
    freed = {
        how: int(subprocess.check_output([sys.executable, "-c", CODE, how]))
        for how in ("off", "on")
    }
    assert freed["on"] >= 30  # of 32 times LARGE
    assert freed["off"] < freed["on"] / 2
