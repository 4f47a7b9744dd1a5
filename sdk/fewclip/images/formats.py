"""Which image formats are read, and how a message describes a file of any other."""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import IO

from PIL import Image as PILImage

from fewclip.errors import OptionError

# What cameras, browsers and scanners write, as Pillow names it. MPO (two pictures in one JPEG)
# comes with JPEG, HEIF with pillow-heif. FEWCLIP_FORMATS (comma-separated) names others, such as
# JPEG2000: every extra decoder is one more that an untrusted file may exploit.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
FORMATS_VARIABLE = "FEWCLIP_FORMATS"
# They run a program, read other files, or are recognised by file name alone.
_NEVER = {"EPS", "WMF", "FPX", "MIC", "TGA"}
_HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")


def image_suffixes() -> frozenset[str]:
    """File name endings (".jpg" ...) of the formats that are read."""
    _register_heif()
    formats = {*formats_of(), "MPO"}
    return frozenset(s for s, name in PILImage.registered_extensions().items() if name in formats)


def formats_of(file: IO[bytes] | None = None) -> list[str]:
    """The formats that are read; HEIF only where a file asks for it, since its import is slow."""
    _register_plugins()
    if file is not None:
        if file.read(12)[4:] in _HEIC:
            _register_heif()
        file.seek(0)
    return [name for name in _allowed() if name in PILImage.OPEN]


def unidentified(file: IO[bytes]) -> str:
    """What is wrong with a file that no decoder takes."""
    file.seek(0)
    if file.read(12)[4:] in _HEIC:
        return "a HEIC photo; save it as JPEG, or pip install pillow-heif to have it read"
    # List HEIF even before a photo asks for it, so that every process says the same.
    read = {*PILImage.OPEN, *(["HEIF"] if _has_heif() else [])}
    return f"not an image ({', '.join(name for name in _allowed() if name in read)} are read)"


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
def _has_heif() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


@functools.cache
def _register_heif() -> None:
    """Let pillow-heif, where it is installed, read HEIC photos."""
    if _has_heif():
        import pillow_heif

        pillow_heif.register_heif_opener()
