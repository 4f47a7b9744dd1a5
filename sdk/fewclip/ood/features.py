"""A tower's features -> the parts that the OOD score compares. No score."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
AnyFloats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

NEAREST_PARTS = 3  # parts with nearest images: output features, mean and deviation, maximum
PRINCIPAL_PARTS = (2, 3)  # with principal directions: maximum, mean at a quarter
DENSITY_PART = 1  # with a local density: mean and deviation


def unit(x: AnyFloats) -> Floats:
    """(..., w) -> float64 of length 1 along the last axis."""
    y = np.asarray(x, np.float64)
    length: Floats = np.maximum(np.linalg.norm(y, axis=-1, keepdims=True), 1e-12)
    return y / length


def ood_parts(features: AnyFloats, intermediate: AnyFloats | None) -> tuple[Floats, ...]:
    """What the score compares, each part L2-normalised.

    Args:
        features: (B, D) output features.
        intermediate: (B, 5 w) of `Backbone.intermediate`: mean patch tokens at a quarter, half and
            three quarters of the tower, then their standard deviation and maximum at half. None for
            a tower without residual blocks.

    Returns:
        (B, D); with intermediate also (B, 2 w) mean and deviation and (B, w) maximum at half, and
        (B, w) mean at a quarter.
    """
    if intermediate is None:
        return (unit(features),)
    low, mean, _, deviation, peak = np.split(np.asarray(intermediate, np.float64), 5, axis=1)
    middle = np.concatenate([mean, deviation], axis=1)
    return unit(features), unit(middle), unit(peak), unit(low)
