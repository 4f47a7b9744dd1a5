"""The process that decodes for a `DecodePool`: files in, pixels out. Run by the pool alone.

It may be killed at any moment, and it limits itself: memory, no file written, no core dump, and an
alarm should the pool die while a file is being decoded. It ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image as PILImage

from fewclip.errors import ImageError, ImageTooLargeError
from fewclip.images import decode
from fewclip.preprocess import Pixels, resize_and_crop

REQUEST = struct.Struct("<IQ")  # bytes of the JSON that says what to do, bytes of the file
# Status, side of the crop, height and width of the thumbnail (0: not asked for), bytes of text.
ANSWER = struct.Struct("<B4I")
DONE, BROKEN, TOO_LARGE, FAILED = range(4)
MAX_TEXT = 2000


def main() -> None:
    """Answer requests until standard input ends."""
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    plan = json.loads(sys.argv[1])
    _limit_self(plan["memory"])
    _write(answers, ANSWER.pack(DONE, 0, 0, 0, 0))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            wanted, size = REQUEST.unpack(_read(requests, REQUEST.size))
            order, file = json.loads(_read(requests, wanted)), _read(requests, size)
            if sys.platform != "win32":  # kills even within a decoder's own loop
                signal.setitimer(signal.ITIMER_PROF, plan["seconds"])
            _write(answers, _answer(order, file))
            if sys.platform != "win32":
                signal.setitimer(signal.ITIMER_PROF, 0)


def _answer(order: Mapping[str, Any], file: bytes) -> bytes:
    try:
        image = decode(order.get("path", file), max_pixels=order["max_pixels"])
        return _pack(*reduce_image(image, order.get("crop"), order.get("thumbnail")))
    except ImageTooLargeError as error:
        status, reason = TOO_LARGE, str(error)
    except ImageError as error:
        status, reason = BROKEN, str(error)
    except Exception as error:  # our own fault; the pool reports it
        status, reason = FAILED, f"{type(error).__name__}: {error}"
    text = reason.encode("utf-8", "replace")[:MAX_TEXT]
    return ANSWER.pack(status, 0, 0, 0, len(text)) + text


def reduce_image(
    image: PILImage.Image, spec: Mapping[str, Any] | None, side: int | None
) -> tuple[Pixels | None, Pixels | None]:
    """The crop (size, size, 3) and the thumbnail (h, w, 3), both uint8; None if not asked for."""
    crop = None if spec is None else np.asarray(resize_and_crop(image, **spec))
    if side is None:
        return crop, None
    image.thumbnail((side, side), PILImage.Resampling.BILINEAR)
    return crop, np.asarray(image)


def _pack(crop: Pixels | None, thumbnail: Pixels | None) -> bytes:
    size = 0 if crop is None else len(crop)
    height, width = (0, 0) if thumbnail is None else thumbnail.shape[:2]
    parts = [each.tobytes() for each in (crop, thumbnail) if each is not None]
    return ANSWER.pack(DONE, size, height, width, 0) + b"".join(parts)


def _limit_self(memory: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # a lower limit is in force
            resource.setrlimit(what, (most, most))


def _read(handle: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        block = os.read(handle, min(size - len(data), 1 << 20))
        if not block:
            raise EOFError
        data += block
    return bytes(data)


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


if __name__ == "__main__":
    main()
