"""A class set: its tokenized prompts, and what they are inside the text tower. It computes nothing.

All prompts start with the same tokens, the prefix; what follows in each is its suffix.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class ClassPrompts:
    """Tokenised class prompts, cut after the last EOT, with their common start split off.

    Attributes:
        prefix: (p,) int64, the longest common token prefix, ending before any EOT; p >= 1.
        suffix: (M, t) int64, what follows, padded with 0.
        eot: (M,) int64, position of the EOT within `suffix`.
    """

    prefix: Tensor
    suffix: Tensor
    eot: Tensor

    @classmethod
    def split(cls, tokens: np.ndarray) -> ClassPrompts:
        """Split (M, context) int64 token rows."""
        eot = tokens.argmax(axis=1)
        same = (tokens == tokens[:1]).all(axis=0)
        shared = int(np.argmin(same)) if not same.all() else tokens.shape[1]
        p = min(shared, int(eot.min()))
        suffix = tokens[:, p : int(eot.max()) + 1]
        return cls(
            *(torch.from_numpy(np.ascontiguousarray(x)) for x in (tokens[0, :p], suffix, eot - p))
        )

    def to(self, device: torch.device) -> ClassPrompts:
        return ClassPrompts(self.prefix.to(device), self.suffix.to(device), self.eot.to(device))

    def __len__(self) -> int:
        return self.suffix.shape[0]

    @property
    def length(self) -> int:
        """Tokens of a suffix, padding included."""
        return self.suffix.shape[1]

    def select(self, classes: Tensor, length: int | None = None) -> ClassPrompts:
        """The same for some classes only, `classes` (m,) int64, cut to `length` tokens."""
        return ClassPrompts(self.prefix, self.suffix[classes, :length], self.eot[classes])


@dataclasses.dataclass(frozen=True)
class TextHidden:
    """A class set inside the text tower; G is 1, or the batch where each image has its own prompts.

    Attributes:
        prefix: (G, p, w) shared by all classes.
        suffix: (G, M, t, w) per class.
        eot: (M,) int64, row of the EOT within `suffix`.
        per_image: whether G is a batch of images, so that features are (G, M, D).
    """

    prefix: Tensor
    suffix: Tensor
    eot: Tensor
    per_image: bool = False

    @property
    def length(self) -> int:
        """Rows of a suffix, padding included."""
        return self.suffix.shape[2]

    def select(self, classes: Tensor, length: int | None = None) -> TextHidden:
        """The same for some classes only, `classes` (m,) int64, cut to `length` rows."""
        suffix = self.suffix[:, classes, :length]
        return dataclasses.replace(self, suffix=suffix, eot=self.eot[classes])

    def by_length(self) -> tuple[Tensor | None, list[TextHidden]]:
        """Groups of classes of similar length, each cut after its longest EOT.

        One group of all where `groups_by_length` is False.

        Returns:
            The order of the classes in the groups, None if it is their own; and the groups.
        """
        if not groups_by_length(self.eot.device):
            return None, [self]
        order = self.eot.argsort(stable=True)
        stops = group_stops((self.eot[order] + 1).tolist())
        if len(stops) == 1:
            return None, [self]
        bounds = itertools.pairwise([0, *(stop for stop, _ in stops)])
        return order, [
            self.select(order[first:stop], length)
            for (first, stop), (_, length) in zip(bounds, stops, strict=True)
        ]


def groups_by_length(device: torch.device) -> bool:
    """False on a GPU: reading the lengths would wait for it, and padding costs it less."""
    return device.type == "cpu"


def group_stops(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Where each group of ascending lengths ends, and its longest: padding adds an eighth at most.

    Fewer groups would multiply padding, more would have too little to do in each attention.
    """
    found: list[tuple[int, int]] = []
    first = own = 0
    for stop, length in enumerate(lengths, 1):
        own += length
        longer = lengths[stop] if stop < len(lengths) else None
        if longer is None or (stop + 1 - first) * longer > (own + longer) * 9 / 8:
            found.append((stop, length))
            first, own = stop, 0
    return found
