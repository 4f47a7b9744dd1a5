"""Training images decoded once and kept, within a memory budget. It never crops."""

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
        spec: the backbone's preprocessing; an image far larger than its input is stored reduced.
        budget_bytes: images that do not fit are decoded again on every request.
    """

    def __init__(self, items: Sequence[Item], spec: Preprocess, budget_bytes: int) -> None:
        self._items = list(items)
        self._spec = spec
        self._free = budget_bytes
        self._kept: dict[int, Pixels] = {}
        self._whole: set[int] = set()  # those of the kept images that were not reduced
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, index: int) -> Pixels:
        """(H, W, 3) uint8 RGB, read-only because it is shared.

        Raises:
            ImageError: the image can no longer be read, as it could when the data was read.
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
        """All images, for a pass without augmentation: decoded if they are kept at full size,
        else as they were given."""
        return [
            self._kept[i] if i in self._whole else item.image for i, item in enumerate(self._items)
        ]
