"""A decoded image as a person sees it: EXIF orientation applied, 8-bit RGB on white."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from fewclip.decoding.image_headers import check_exif
from fewclip.errors import ImageError

_ORIENTATION = 0x0112
# `ImageOps.exif_transpose` would copy images that are upright already, and rewrite the EXIF and XMP
# blocks of an untrusted file.
_UPRIGHT = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}


def upright(image: PILImage.Image) -> PILImage.Image:
    """The image rotated or mirrored as its EXIF orientation says.

    Raises:
        ImageError: an EXIF block that is not safe to parse.
    """
    try:
        for exif in (image.info.get("exif"), _png_profile(image)):
            if isinstance(exif, bytes):
                check_exif(exif)
        orientation = image.getexif().get(_ORIENTATION, 1)
    except ImageError:
        raise
    except Exception:  # a broken EXIF block: the pixels are intact, and shown as stored
        return image
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def rgb(image: PILImage.Image) -> PILImage.Image:
    """8-bit RGB, transparent pixels on white.

    Raises:
        ImageError: grey values out of range.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        white = PILImage.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def _from_deep(values: npt.NDArray[Any]) -> PILImage.Image:
    """16-bit (0..65535) or float (0..1) grey, (H, W) -> 8-bit grey."""
    is_float = values.dtype.kind == "f"
    full = 1.0 if is_float else 65535.0
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= full):  # written this way, it refuses NaN too
        expected = "floats from 0 to 1" if is_float else "16-bit values from 0 to 65535"
        raise ImageError(
            f"grey values from {low:g} to {high:g}, not {expected}; save it with 8 or 16 bits"
        )
    grey = np.rint(values.astype(np.float32) * np.float32(255 / full))
    return PILImage.fromarray(grey.astype(np.uint8))


def _png_profile(image: PILImage.Image) -> bytes:
    """The EXIF block that ImageMagick writes into a PNG as hexadecimal text."""
    text = image.info.get("Raw profile type exif")
    return bytes.fromhex("".join(text.split("\n")[3:])) if isinstance(text, str) else b""
