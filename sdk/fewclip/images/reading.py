"""One image from a path, bytes, Pillow or an array, within limits."""

from __future__ import annotations

import os
import stat
import threading
from io import BytesIO
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from fewclip.decoding.image_headers import check_headers
from fewclip.errors import ImageError, ImageTooLargeError, OptionError
from fewclip.images.formats import formats_of, unidentified
from fewclip.images.upright import rgb, upright

# A path, an encoded image, a PIL image, or RGB uint8 (H, W, 3).
Image: TypeAlias = str | os.PathLike[str] | bytes | PILImage.Image | npt.NDArray[np.uint8]

# Where Pillow itself begins to warn of a decompression bomb: 89 megapixels, 256 MiB as RGB.
MAX_PIXELS = 89_478_485
# A longer strip would grow without bound when its short side is scaled to the input size.
MAX_ASPECT = 200

_TOO_MUCH_MEMORY = "takes more memory to decode than there is; reduce the image"
# Pillow decodes an opened image at first use, which two threads must not do at once.
_SHARED_IMAGE = threading.Lock()


def load_image(
    image: Image, *, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> PILImage.Image:
    """Read one image upright and as RGB.

    Args:
        image: a path, encoded bytes, a PIL image, or RGB uint8 (H, W, 3).
        max_pixels: a larger image is refused before it is decoded.
        name: what to call it in an error; the path where there is one.

    Raises:
        ImageTooLargeError: more than `max_pixels`.
        ImageError: it is missing, unreadable, broken, or not an image.
    """
    try:
        return decode(image, max_pixels=max_pixels)
    except ImageError as error:
        raise type(error)(f"{name or _name(image)}: {error}") from error.__cause__


def decode(image: Image, *, max_pixels: int = MAX_PIXELS) -> PILImage.Image:
    """`load_image` whose ImageError gives only the reason, for callers that list names apart."""
    if isinstance(image, PILImage.Image):
        with _SHARED_IMAGE:
            return _as_seen(image, max_pixels)
    if isinstance(image, np.ndarray):
        return _from_array(image, max_pixels)
    if isinstance(image, bytes):
        return _from_file(BytesIO(image), len(image), max_pixels)
    if isinstance(image, (str, os.PathLike)):
        return _from_path(image, max_pixels)
    raise ImageError(
        f"a {type(image).__name__} is not an image; "
        "give a path, bytes, a PIL image or an RGB uint8 array (H, W, 3)"
    )


def _from_path(path: str | os.PathLike[str], max_pixels: int) -> PILImage.Image:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe or a device may never return
            raise ImageError("a folder or a device, not an image file; give a file")
        with open(path, "rb") as file:
            return _from_file(file, status.st_size, max_pixels)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("no such file; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot be read ({reason}); check its permissions and disk") from error


def _from_file(file: IO[bytes], size: int, max_pixels: int) -> PILImage.Image:
    if size == 0 and not file.read(1):
        raise ImageError("an empty file, not an image; copy it again")
    # A plugin may raise anything on broken bytes: OSError, SyntaxError, struct.error, zlib.error,
    # or a warning turned into an error. The file is at fault, and the cause is kept.
    try:
        check_headers(file)
        with PILImage.open(file, formats=formats_of(file)) as image:
            return _as_seen(image, max_pixels)
    except (ImageError, OptionError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError(unidentified(file)) from error
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning) as error:
        limit = min(max_pixels, 2 * (PILImage.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageTooLargeError(
            f"more than the {limit:,} pixels allowed; reduce the image"
        ) from error
    except MemoryError as error:
        raise ImageError(_TOO_MUCH_MEMORY) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # the disk's fault, not the image's
            raise
        raise ImageError(_broken(error)) from error


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> PILImage.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ImageError(
            f"an array of {array.dtype} {array.shape} is not an image; give RGB uint8 (H, W, 3)"
        )
    _check_size(array.shape[1], array.shape[0], max_pixels)
    return PILImage.fromarray(np.ascontiguousarray(array))


def _as_seen(image: PILImage.Image, max_pixels: int) -> PILImage.Image:
    _check_size(*image.size, max_pixels)
    try:
        image.load()
        return rgb(upright(image))
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(_TOO_MUCH_MEMORY) from error
    except Exception as error:  # as in _from_file
        if isinstance(error, OSError) and error.errno:
            raise
        raise ImageError(_broken(error)) from error


def _broken(error: Exception) -> str:
    return f"truncated or broken ({error}); copy or save it again"


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{width} x {height} pixels, more than the {max_pixels:,} allowed; reduce the image"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{width} x {height} pixels, a strip more than {MAX_ASPECT} times as long as wide; "
            "cut it into pieces"
        )


def _name(image: Any) -> str:
    if isinstance(image, (str, os.PathLike)):
        return readable(image)
    return f"an image of {len(image)} bytes" if isinstance(image, bytes) else "an image"


def readable(path: str | os.PathLike[str]) -> str:
    """A path that can be printed and stored, even where its bytes are not valid text."""
    return os.fsencode(path).decode("utf-8", "replace")
