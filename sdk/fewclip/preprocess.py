"""Image -> (3, H, W) float32: the only copy, for training, evaluation, export and service.

No torch. An image is read upright and as RGB (`images`), then resized, centre-cropped and
normalised as CLIP does. For an upright 8-bit RGB image the result equals open_clip's own inference
transform bit for bit. It deviates on purpose where that transform shows the model something that a
person does not see: `images` lists the cases, and colours are converted before resizing rather than
after, so palette indices are not interpolated as if they were intensities.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from fewclip.contract import Preprocess
from fewclip.errors import ImageError, OptionError
from fewclip.images import MAX_PIXELS, Image, load_image
from fewclip.system.cores import usable_cores

__all__ = [
    "MAX_PIXELS",
    "WORKERS",
    "Image",
    "Images",
    "Inputs",
    "Pixels",
    "augment",
    "batches",
    "load_image",
    "preprocess",
    "random_box",
    "random_view",
    "reduce_for_training",
    "resize_and_crop",
    "to_input",
]

Pixels: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Inputs: TypeAlias = npt.NDArray[np.float32]  # (3, H, W) or (B, 3, H, W), normalised
# One image, several, uint8 (N, H, W, 3), or what `preprocess` returns.
Images: TypeAlias = Image | Sequence[Image] | npt.NDArray[np.uint8] | Inputs

WORKERS = min(8, usable_cores())
CROP_AREA = 0.08  # smallest share of an image that a training crop keeps, as published
# The published augmentation suits photos of things. Small parts, letters and hands need crops that
# keep most of the image, and no mirroring.
AUGMENTATIONS: Mapping[str, Mapping[str, Any]] = {
    "published": {"crop_area": CROP_AREA, "flip": True},
    "gentle": {"crop_area": 0.6, "flip": False},
    "none": {"crop_area": 1.0, "flip": False},
}

_RESAMPLING = {
    "bicubic": PILImage.Resampling.BICUBIC,
    "bilinear": PILImage.Resampling.BILINEAR,
}


def preprocess(
    images: Sequence[Image],
    spec: Preprocess,
    *,
    workers: int = WORKERS,
    max_pixels: int = MAX_PIXELS,
) -> Inputs:
    """Images -> (B, 3, size, size) float32, in order; decoded and resized in threads.

    Raises:
        ImageError: the first image, in order, that cannot be read.
    """
    batch = np.empty((len(images), 3, spec.size, spec.size), np.float32)

    def fill(index: int) -> None:
        batch[index] = to_input(load_image(images[index], max_pixels=max_pixels), spec)

    if min(len(images), workers) < 2:
        for index in range(len(images)):
            fill(index)
        return batch
    with ThreadPoolExecutor(min(workers, len(images))) as pool:
        for _ in pool.map(fill, range(len(images))):
            pass
    return batch


def batches(
    images: Images, spec: Preprocess, *, size: int, workers: int = WORKERS
) -> Iterator[Inputs]:
    """(n, 3, S, S) float32, n <= `size`, S = `spec.size`: how every classifier reads its input.

    The next batch is decoded while the caller works on this one.

    Args:
        images: one image or several, RGB uint8 (N, H, W, 3), or preprocessed float32.

    Raises:
        ImageError: an image cannot be read, is not an image, or is a float array unfit for `spec`.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4 and images.dtype != np.uint8:
        yield from _preprocessed(images, spec, size)
        return
    pending = listed(images)
    parts = [pending[first : first + size] for first in range(0, len(pending), size)]
    if len(parts) < 2:
        yield from (preprocess(part, spec, workers=workers) for part in parts)
        return
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(preprocess, parts[0], spec, workers=workers)
        for part in parts[1:]:
            batch, ahead = ahead.result(), reader.submit(preprocess, part, spec, workers=workers)
            yield batch
        yield ahead.result()


def listed(images: Any) -> list[Image]:
    """One image or many -> a list; each is checked when it is read."""
    if isinstance(images, (str, bytes, os.PathLike, PILImage.Image)):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim != 4:
        return [images]
    if isinstance(images, (Mapping, Set, bytearray, memoryview)) or not isinstance(
        images, Iterable
    ):
        raise ImageError(
            f"a {type(images).__name__} is neither an image nor a list of images; give paths, "
            "bytes, PIL images or RGB uint8 arrays"
        )
    return list(images)


def _preprocessed(array: npt.NDArray[Any], spec: Preprocess, size: int) -> Iterator[Inputs]:
    """A preprocessed array in batches, after a check that it is one."""
    expected = (3, spec.size, spec.size)
    if array.dtype != np.float32 or array.shape[1:] != expected:
        raise ImageError(
            f"an array of {array.dtype} {array.shape} is neither RGB uint8 (N, H, W, 3) nor "
            f"preprocessed float32 (N, {', '.join(map(str, expected))})"
        )
    for first in range(0, len(array), size):
        part = np.ascontiguousarray(array[first : first + size])
        if not np.isfinite(part).all():
            raise ImageError("a preprocessed array holds NaN or infinity; check where it is from")
        yield part


def to_input(image: PILImage.Image, spec: Preprocess) -> Inputs:
    """RGB image -> (3, size, size) float32, normalised: CLIP's inference transform."""
    seen = resize_and_crop(
        image, size=spec.size, interpolation=spec.interpolation, resize_mode=spec.resize_mode
    )
    return _normalise(seen, spec)


def resize_and_crop(
    image: PILImage.Image, *, size: int, interpolation: str, resize_mode: str
) -> PILImage.Image:
    """RGB image -> RGB image (size, size), what the model sees; idempotent."""
    if resize_mode == "squash":
        return _resize(image, (size, size), interpolation)
    if resize_mode != "shortest":
        raise OptionError(f"resize_mode {resize_mode!r} is not known; use shortest or squash")
    image = _resize(image, _shorter_side_to(size, image), interpolation)
    # round() rounds halves to even, as torchvision's CenterCrop does.
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def reduce_for_training(image: PILImage.Image, spec: Preprocess) -> Pixels:
    """RGB image -> (H, W, 3) uint8 to keep in memory and crop from.

    An image whose shorter side exceeds four times the input size is reduced to that: the smallest
    crop, 8 % of the area, still has more pixels than the input.
    """
    limit = 4 * spec.size
    if min(image.size) > limit:
        image = _resize(image, _shorter_side_to(limit, image), spec.interpolation)
    return np.array(image)


def augment(
    pixels: Pixels,
    spec: Preprocess,
    rng: np.random.Generator,
    *,
    crop_area: float = CROP_AREA,
    flip: bool = True,
) -> Inputs:
    """Random resized crop and horizontal flip, (H, W, 3) uint8 -> (3, size, size) float32.

    The distribution is that of torchvision's `RandomResizedCrop` (area `crop_area` to 1, ratio 3/4
    to 4/3) and `RandomHorizontalFlip`; for the same box and flip, results are equal bit for bit.
    """
    (top, left, height, width), mirrored = random_view(pixels.shape, rng, crop_area, flip)
    image = PILImage.fromarray(pixels[top : top + height, left : left + width])
    image = _resize(image, (spec.size, spec.size), spec.interpolation)
    if mirrored:
        image = image.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT)
    return _normalise(image, spec)


def random_view(
    shape: Sequence[int], rng: np.random.Generator, crop_area: float, flip: bool
) -> tuple[tuple[int, int, int, int], bool]:
    """`random_box` of an (H, W, 3) image, and whether to mirror it."""
    box = random_box(shape[0], shape[1], rng, crop_area)
    return box, bool(rng.random() < 0.5) and flip


def random_box(
    height: int, width: int, rng: np.random.Generator, crop_area: float = CROP_AREA
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop in pixels; centred if ten tries do not fit."""
    narrowest, widest = 3 / 4, 4 / 3
    for _ in range(10):
        area = height * width * rng.uniform(crop_area, 1.0)
        ratio = math.exp(rng.uniform(math.log(narrowest), math.log(widest)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return int(top), int(left), h, w
    h = min(height, round(width / narrowest))
    w = min(width, round(height * widest))
    return (height - h) // 2, (width - w) // 2, h, w


def _normalise(image: PILImage.Image, spec: Preprocess) -> Inputs:
    """RGB image -> (3, H, W) float32; the order of the float32 operations is torchvision's."""
    pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
    pixels /= np.float32(255)
    pixels -= np.array(spec.mean, np.float32)[:, None, None]
    pixels /= np.array(spec.std, np.float32)[:, None, None]
    return pixels


def _resize(image: PILImage.Image, size: tuple[int, int], interpolation: str) -> PILImage.Image:
    method = _RESAMPLING.get(interpolation)
    if method is None:
        raise OptionError(
            f"interpolation {interpolation!r} is not known; use {' or '.join(_RESAMPLING)}"
        )
    return image.resize(size, method)


def _shorter_side_to(size: int, image: PILImage.Image) -> tuple[int, int]:
    """(width, height) with the shorter one `size` and the longer one truncated to an integer."""
    if image.width <= image.height:
        return size, int(size * image.height / image.width)
    return int(size * image.width / image.height), size
