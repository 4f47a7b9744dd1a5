"""Large blocks go back to the system, small ones stay; pages are huge where they may be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewclip.system import allocator

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


@pytest.mark.parametrize(
    ("enabled", "asked"),
    [("always [madvise] never", "1"), ("always madvise [never]", None), (None, None)],
)
def test_huge_pages_are_asked_for_where_asking_helps(
    enabled: str | None, asked: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if enabled is not None:
        (tmp_path / "enabled").write_text(enabled)
    monkeypatch.setattr(allocator, "HUGE_PAGES", tmp_path / "enabled")
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "")  # so that it is put back afterwards
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    allocator.ask_for_huge_pages()
    assert os.environ.get("THP_MEM_ALLOC_ENABLE") == asked


def test_a_choice_about_huge_pages_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    allocator.ask_for_huge_pages()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
