"""A linear head: weight and bias. It knows neither how it was fitted nor what its features are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
AnyFloats = NDArray[np.floating[Any]]
BLOCK = 4096


def row_blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices of `size` rows, so that float64 copies of only a few rows exist at a time."""
    return (slice(first, first + size) for first in range(0, n, size))


@dataclasses.dataclass(frozen=True)
class Head:
    """Logits `x @ weight.T + bias`.

    Attributes:
        weight: (M, L) float64.
        bias: (M,) float64.
    """

    weight: Floats
    bias: Floats

    def __call__(self, features: AnyFloats) -> Floats:
        """(B, L) -> (B, M) float64."""
        return np.asarray(features, np.float64) @ self.weight.T + self.bias

    def scaled(self, factor: float) -> Head:
        """The head whose logits are `factor` times these."""
        return Head(factor * self.weight, factor * self.bias)
