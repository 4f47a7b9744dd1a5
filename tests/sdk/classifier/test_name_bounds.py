"""Class names are bounded by their length, and what is remembered of them by its bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewclip import class_set
from fewclip.errors import ClassNameError
from fewclip.runtime import text_tower
from fewclip.runtime.text_tower import TextTower


@pytest.mark.parametrize("name", ["a\n" * 80_000, "é" * 2000, "&amp;" * 100_000])
def test_a_long_name_is_refused_before_it_is_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def spy(text: str) -> str:
        seen.append(text)
        return text

    for step in ("clean_label", "prompt_key"):
        monkeypatch.setattr(f"fewclip.class_set.names.{step}", spy)
    for names in ([name], {"a cat": name}):
        with pytest.raises(ClassNameError, match="characters"):
            class_set.read_phrases(names)
    assert seen == ["a cat"]


def test_what_is_remembered_is_bounded_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_tower, "REMEMBERED_BYTES", 100_000)

    class Rows(TextTower):
        """One that computes nothing: only what it remembers is looked at."""

        def _encode(self, phrases: object) -> np.ndarray:
            return np.ones((len(phrases), 8), np.float32)  # type: ignore[arg-type]

    tower = Rows(Path(), None, {}, lambda _: None)  # type: ignore[arg-type]
    for first in range(0, 1000, 50):
        tower.features([f"{i} {'x' * 900}" for i in range(first, first + 50)])
        assert tower._bytes <= 100_000
    kept = tower._remembered
    assert 0 < len(kept) < 150
    assert tower._bytes == sum(text_tower._size(*each) for each in kept.items())
