"""Kill -9 over adapt, save and export: a few of the moments that `benchmarks/kill.py` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kill


@pytest.mark.slow
def test_after_every_kill_there_is_a_whole_model_or_none(tmp_path: Path) -> None:
    assert kill.kill_many(tmp_path, kills=3, seed=1)
