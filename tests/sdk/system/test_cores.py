"""The one rule for threads: affinity, hyper-threads, the container's quota; threads that sleep."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from fewclip.backbone import device
from fewclip.system import cores


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("", 4)]
)
def test_threads_respect_affinity_siblings_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    """Eight hyper-threads of four cores."""

    def read(path: str) -> str:
        if path.endswith("cpu.max"):
            return quota
        number = int(path.split("/cpu/cpu")[1].split("/")[0])
        return f"{number % 4},{number % 4 + 4}"

    monkeypatch.setattr(cores, "_read", read)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    cores.usable_cores.cache_clear()
    assert cores.usable_cores() == expected
    cores.usable_cores.cache_clear()


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "active")]
)
def test_waiting_threads_sleep_unless_somebody_chose(given: dict[str, str], expected: str) -> None:
    script = "import os, fewclip; print(os.environ['OMP_WAIT_POLICY'])"
    env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | given
    found = subprocess.check_output([sys.executable, "-c", script], env=env, text=True)
    assert found.strip() == expected


def test_torch_takes_no_more_threads_than_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        monkeypatch.setattr(device, "usable_cores", lambda: 2)
        device.limit_threads()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        device.limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
