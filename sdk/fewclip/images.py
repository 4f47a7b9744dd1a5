"""Reading one image as a person sees it: upright and RGB. Not its size or scale; no torch.

What Pillow's own `convert("RGB")` would show the model otherwise:

- EXIF orientation is applied; open_clip ignores it.
- Transparent pixels stand on white; dropping the alpha channel would show whatever lies beneath.
- 16-bit grey is scaled to 8 bits; Pillow clips it to white.
- An animated image is its first frame.

Only formats that a camera, a browser or a scanner writes are read (`FORMATS`), and their headers
are checked before Pillow parses them (`image_headers.py`).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import stat
import threading
from io import BytesIO
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from fewclip.decoding.image_headers import check_exif, check_headers
from fewclip.errors import ImageError, ImageTooLargeError, OptionError

# A path, an encoded image, a PIL image, or RGB uint8 (H, W, 3).
Image: TypeAlias = str | os.PathLike[str] | bytes | PILImage.Image | npt.NDArray[np.uint8]

# Where Pillow itself begins to warn of a decompression bomb: 89 megapixels, 256 MiB as RGB.
MAX_PIXELS = 89_478_485
# A longer strip would grow without bound when its short side is brought to the input's size.
MAX_ASPECT = 200

# What cameras, browsers and scanners write, as Pillow names it. MPO (two pictures in one JPEG)
# comes with JPEG, HEIF with pillow-heif. FEWCLIP_FORMATS (comma-separated) names others, such as
# JPEG2000: a decoder that nobody needs is one more that an untrusted file may break.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
FORMATS_VARIABLE = "FEWCLIP_FORMATS"
# They run a program, read other files, or are known by their name alone.
_NEVER = {"EPS", "WMF", "FPX", "MIC", "TGA"}
_HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")
_ORIENTATION = 0x0112
# `ImageOps.exif_transpose` would copy images that are upright already, and write the EXIF and XMP
# blocks of an untrusted file anew.
_UPRIGHT = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}
_TOO_MUCH_MEMORY = "takes more memory to decode than there is; reduce the image"
# Pillow decodes an opened image at first use, which two threads must not do at once.
_SHARED_IMAGE = threading.Lock()


def load_image(
    image: Image, *, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> PILImage.Image:
    """Read one image upright and as RGB.

    Args:
        image: a path, encoded bytes, a PIL image, or RGB uint8 (H, W, 3).
        max_pixels: an image of more is refused before it is decoded.
        name: what to call it in an error; the path where there is one.

    Raises:
        ImageTooLargeError: more than `max_pixels`.
        ImageError: it is missing, unreadable, broken, or no image.
    """
    try:
        return decode(image, max_pixels=max_pixels)
    except ImageError as error:
        raise type(error)(f"{name or _name(image)}: {error}") from error.__cause__


def decode(image: Image, *, max_pixels: int = MAX_PIXELS) -> PILImage.Image:
    """`load_image` whose ImageError gives the reason only, for callers that list names apart."""
    if isinstance(image, PILImage.Image):
        with _SHARED_IMAGE:
            return _upright_rgb(image, max_pixels)
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


def readable(path: str | os.PathLike[str]) -> str:
    """A path that can be printed and stored, even where its bytes are no valid text."""
    return os.fsencode(path).decode("utf-8", "replace")


def image_suffixes() -> frozenset[str]:
    """File name endings (".jpg" ...) of the formats that are read."""
    _register_heif()
    formats = {*_formats(), "MPO"}
    return frozenset(s for s, name in PILImage.registered_extensions().items() if name in formats)


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
    # A plugin meets broken bytes with anything: OSError, SyntaxError, struct.error, zlib.error,
    # or a warning turned into an error. The file is at fault, and the cause is kept.
    try:
        check_headers(file)
        with PILImage.open(file, formats=_formats(file)) as image:
            return _upright_rgb(image, max_pixels)
    except (ImageError, OptionError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError(_unidentified(file)) from error
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


def _upright_rgb(image: PILImage.Image, max_pixels: int) -> PILImage.Image:
    _check_size(*image.size, max_pixels)
    try:
        image.load()
        return _rgb(_upright(image))
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


def _upright(image: PILImage.Image) -> PILImage.Image:
    try:
        for exif in (image.info.get("exif"), _png_profile(image)):
            if isinstance(exif, bytes):
                check_exif(exif)
        orientation = image.getexif().get(_ORIENTATION, 1)
    except ImageError:
        raise
    except Exception:  # a broken EXIF block: the pixels are whole, and shown as they are stored
        return image
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _rgb(image: PILImage.Image) -> PILImage.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        white = PILImage.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def _from_deep(values: npt.NDArray[Any]) -> PILImage.Image:
    """Grey of 16 bits (0..65535) or float (0..1), (H, W) -> 8-bit grey."""
    is_float = values.dtype.kind == "f"
    full = 1.0 if is_float else 65535.0
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= full):  # said this way round, NaN is refused too
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


def _unidentified(file: IO[bytes]) -> str:
    file.seek(0)
    if file.read(12)[4:] in _HEIC:
        return "a HEIC photo; save it as JPEG, or pip install pillow-heif to have it read"
    return f"not an image ({', '.join(_formats())} are read)"


def _name(image: Any) -> str:
    if isinstance(image, (str, os.PathLike)):
        return readable(image)
    return f"an image of {len(image)} bytes" if isinstance(image, bytes) else "an image"


def _formats(file: IO[bytes] | None = None) -> list[str]:
    """The formats that are read; HEIF only where a file asks for it, since its import is slow."""
    _register_plugins()
    if file is not None:
        if file.read(12)[4:] in _HEIC:
            _register_heif()
        file.seek(0)
    return [name for name in _allowed() if name in PILImage.OPEN]


@functools.cache
def _allowed() -> tuple[str, ...]:
    """`FORMATS`, or what the environment names instead.

    Raises:
        OptionError: it names a format that Pillow does not know, or one that is never read.
    """
    text = os.environ.get(FORMATS_VARIABLE, "")
    if not text:
        return FORMATS
    names = tuple(name.strip().upper() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name in _NEVER or name not in {*PILImage.OPEN, "HEIF"}]
    if unknown or not names:
        raise OptionError(
            f"{FORMATS_VARIABLE} names {', '.join(unknown) or 'nothing'}, which is not read; "
            f"name some of {', '.join(sorted({*PILImage.OPEN} - _NEVER))}"
        )
    return names


@functools.cache
def _register_plugins() -> None:
    PILImage.init()


@functools.cache
def _register_heif() -> None:
    """Let pillow-heif, where it is installed, read HEIC photos."""
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
