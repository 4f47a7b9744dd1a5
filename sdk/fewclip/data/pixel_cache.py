"""Training images decoded once and kept, within a budget of memory. It neither crops nor scales."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from fewclip.contract import Preprocess
from fewclip.data.pool import Item
from fewclip.preprocess import Pixels, load_image, reduce_for_training


class PixelStore:
    """Decoded images by index; safe to ask from several threads.

    Args:
        items: the images.
        spec: the backbone's preprocessing; an image far larger than its input is kept reduced.
        budget_bytes: what is over it is decoded again whenever it is asked for.
    """

    def __init__(self, items: Sequence[Item], spec: Preprocess, budget_bytes: int) -> None:
        self._items = list(items)
        self._spec = spec
        self._free = budget_bytes
        self._kept: dict[int, Pixels] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, index: int) -> Pixels:
        """(H, W, 3) uint8 RGB, read-only, for it is shared.

        Raises:
            ImageError: the image was there when the data was read and is not any more.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        item = self._items[index]
        pixels = reduce_for_training(load_image(item.image, name=item.source), self._spec)
        pixels.setflags(write=False)
        with self._lock:
            if index not in self._kept and pixels.nbytes <= self._free:
                self._kept[index] = pixels
                self._free -= pixels.nbytes
        return pixels
