"""Training images decoded once and kept, within a budget of memory. It neither crops nor scales."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from fewclip.contract import Preprocess
from fewclip.data.pool import Item
from fewclip.preprocess import Image, Pixels, load_image, reduce_for_training


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
        self._whole: set[int] = set()  # of the kept, those that were not reduced
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
        image = load_image(item.image, name=item.source)
        pixels = reduce_for_training(image, self._spec)
        pixels.setflags(write=False)
        with self._lock:
            if index not in self._kept and pixels.nbytes <= self._free:
                self._kept[index] = pixels
                self._free -= pixels.nbytes
                if pixels.shape[:2] == (image.height, image.width):
                    self._whole.add(index)
        return pixels

    def images(self) -> list[Image]:
        """All images for one more pass that shows them as they are: decoded where they are kept
        at full size, else as they came."""
        return [
            self._kept[i] if i in self._whole else item.image for i, item in enumerate(self._items)
        ]
