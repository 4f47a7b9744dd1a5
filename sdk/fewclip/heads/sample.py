"""Training images as a frozen image tower sees them: what every head is fitted on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewclip.heads.linear import BLOCK, AnyFloats, Floats, Ints, row_blocks


def head_features(features: AnyFloats, intermediate: AnyFloats | None) -> Floats:
    """Output features joined with mean patch tokens of intermediate blocks.

    Args:
        features: (..., D).
        intermediate: (..., 5 w) of `Backbone.intermediate`: three means are used; None for none.

    Returns:
        (..., D + 3 w), or (..., D); each part L2-normalised.
    """
    parts = [np.asarray(features, np.float64)]
    if intermediate is not None:
        parts += np.split(np.asarray(intermediate, np.float64), 5, axis=-1)[:3]
    norms = [np.maximum(np.linalg.norm(part, axis=-1, keepdims=True), 1e-12) for part in parts]
    joined: Floats = np.concatenate([p / n for p, n in zip(parts, norms, strict=True)], axis=-1)
    return joined


@dataclasses.dataclass(frozen=True)
class FeatureSample:
    """n training images in V views each; view 0 is the image as it is classified.

    Attributes:
        features: (n, V, D) float32, before L2 normalisation.
        intermediate: (n, V, 5 w) float32, None for a tower without residual blocks.
        labels: (n,) class of each image.
        logits_itm: (n, M) float32 zero-shot logits of view 0.
    """

    features: NDArray[np.float32]
    intermediate: NDArray[np.float32] | None
    labels: Ints
    logits_itm: NDArray[np.float32]

    def joined(
        self, images: NDArray[Any] | None = None, dtype: type[np.floating[Any]] = np.float64
    ) -> AnyFloats:
        """(n, V, L) of `head_features`; float32 is as precise as the features are.

        Args:
            images: indices of those wanted; None for all.
        """
        wanted = np.arange(len(self.labels)) if images is None else images

        def rows(some: NDArray[Any]) -> Floats:
            middle = None if self.intermediate is None else self.intermediate[some]
            return head_features(self.features[some], middle)

        width, views = rows(wanted[:0]).shape[-1], self.features.shape[1]
        joined = np.empty((len(wanted), views, width), dtype)
        for some in row_blocks(len(wanted), max(1, BLOCK // views)):
            joined[some] = rows(wanted[some])
        return joined

    def take(self, images: NDArray[Any]) -> FeatureSample:
        """Some of the images only: indices or a mask."""
        intermediate = None if self.intermediate is None else self.intermediate[images]
        return FeatureSample(
            self.features[images], intermediate, self.labels[images], self.logits_itm[images]
        )
