"""What heads are fitted on: parts of an image's features, joined; and those of augmented views."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fewclip.heads.disk_rows import AnyRows, new_rows
from fewclip.heads.linear import AnyFloats, Floats, Ints


def head_features(features: AnyFloats, intermediate: AnyFloats | None) -> Floats:
    """Output features joined with mean patch tokens of intermediate blocks.

    Args:
        features: (..., D).
        intermediate: (..., 5 w) of `Backbone.intermediate`: three means are used; None for none.

    Returns:
        (..., D + 3 w), or (..., D); each part L2-normalised.
    """
    parts = head_parts(features, intermediate)
    joined: Floats = np.concatenate([part / _lengths(part) for part in parts], axis=-1)
    return joined


def head_parts(features: AnyFloats, intermediate: AnyFloats | None) -> list[AnyFloats]:
    """What `head_features` joins, before normalisation."""
    means = [] if intermediate is None else np.split(intermediate, 5, axis=-1)[:3]
    return [features, *means]


def _lengths(part: AnyFloats) -> Floats:
    """(..., w) -> (..., 1) L2 norms in float64, never zero."""
    lengths: Floats = np.linalg.norm(np.asarray(part, np.float64), axis=-1, keepdims=True)
    return np.maximum(lengths, 1e-12)


@dataclasses.dataclass(frozen=True)
class AugmentedViews:
    """What `head_features` joins, before normalisation, of n images in V augmented views each.

    Attributes:
        parts: (n, V, w) float32 each; apart, because some heads read the first alone.
        lengths: (n, V, 1) float64, the norms of each part's rows.
    """

    parts: tuple[AnyRows, ...]
    lengths: tuple[Floats, ...]

    @classmethod
    def empty(cls, n: int, like: Sequence[AnyFloats]) -> AugmentedViews:
        """Room for n images whose parts are like these (b, V, w)."""
        return cls(
            tuple(new_rows((n, *part.shape[1:])) for part in like),
            tuple(np.empty((n, part.shape[1], 1)) for part in like),
        )

    @property
    def views(self) -> int:
        """V."""
        return int(self.lengths[0].shape[1])

    def fill(self, images: slice, parts: Sequence[AnyFloats]) -> None:
        """Write some images' parts."""
        for mine, lengths, part in zip(self.parts, self.lengths, parts, strict=True):
            mine[images] = part
            lengths[images] = _lengths(part)

    def take(self, images: Ints) -> AugmentedViews:
        """Some of the images only, in memory."""
        return AugmentedViews(
            tuple(part[images] for part in self.parts),
            tuple(lengths[images] for lengths in self.lengths),
        )

    def read(self, images: Ints, out: AnyFloats) -> None:
        """Fill `out` (b, V, l) with the first l columns of these images' `head_features`; l is
        the width of one or more parts."""
        first = 0
        for part, lengths in zip(self.parts, self.lengths, strict=True):
            if first == out.shape[2]:
                break
            end = first + part.shape[2]
            where = out[..., first:end]
            np.divide(part[images], lengths[images], out=where, casting="same_kind")  # in float64
            first = end
