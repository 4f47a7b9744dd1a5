"""Decoding of uploads, in processes that may be killed. One pool for the whole page."""

from __future__ import annotations

import atexit
import functools
import os

from PIL import Image as PILImage

from fewclip.decoding.decode_pool import DecodePool

WORKERS = 2  # images decoded at once, whoever sent them


def decode(image: bytes | os.PathLike[str], *, max_pixels: int) -> PILImage.Image:
    """An uploaded image, upright and RGB.

    Raises:
        ImageError: unreadable, too many pixels, or decoding takes too much time or memory.
    """
    return _pool(max_pixels).image(image)


def thumbnail(path: os.PathLike[str], side: int, *, max_pixels: int) -> PILImage.Image:
    """Like `decode`, but reduced to fit a square of `side` pixels in the decoding process.

    Raises:
        ImageError: as `decode`.
    """
    return _pool(max_pixels).image(path, thumbnail=side)


@functools.cache
def _pool(max_pixels: int) -> DecodePool:
    pool = DecodePool(WORKERS, max_pixels=max_pixels)
    atexit.register(pool.close)
    return pool
