"""Decoding untrusted images in processes that may be killed. No torch, no HTTP.

    with DecodePool(2, max_pixels=50_000_000) as pool:
        pixels = pool.decode(data, crop=card.preprocessing).crop  # (size, size, 3) uint8

A decoder is C code fed with hostile bytes: it may crash, take all memory or never return. Here it
runs in a process with a memory limit and a deadline, without this process's secrets, and only
pixels come back. Large images are decoded by separate processes, at a low priority, and so are slow
ones: neither keeps small images waiting.

An image is refused for one of two reasons: either it is broken or takes more than its share of time
or memory (`ImageError`), or the machine has no time for it right now (`DecoderBusyError`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

from PIL import Image as PILImage

from fewclip.contract import Preprocess
from fewclip.decoding.decode_process import (
    Decoded,
    DecodeProcess,
    crop_options,
    encode_request,
)
from fewclip.decoding.decode_worker import reduce_image
from fewclip.errors import DecoderBusyError, FewclipError, ImageError, ImageTooLargeError
from fewclip.images import MAX_PIXELS, decode

SECONDS = 10.0  # of CPU time until a process is killed
SLOW = 2  # slow images at once; with one more, the longest-running is given up
LARGE = 256 << 10  # a file of this many bytes counts as large ...
LARGE_PIXELS = 1 << 21  # ... or of this many pixels: a kilobyte of WebP may hold fifty million
_QUICK = 0.3  # seconds of CPU time after which a small image counts as slow ...
_QUICK_LARGE = 1.0  # ... a large one, plus
_QUICK_PIXEL = 5e-8  # this for each pixel that it may have
_LOW, _LOWEST = 10, 19  # priorities (nice) of large and of slow images
_WHOLE = 1 << 30  # a square that any image fits into
_BASE_MEMORY = 512 << 20  # address space of Python, its libraries and a file
_PIXEL_MEMORY = 24  # bytes per pixel: coefficients, RGBA, its background, RGB


class _Lane:
    """Processes that decode files of about one size, guarded by `DecodePool`'s lock.

    Args:
        workers: images decoded at once.
        priority: nice value of the processes.
        quick: seconds of CPU time after which an image counts as slow.
    """

    def __init__(self, workers: int, priority: int, quick: float) -> None:
        self.slots = threading.Semaphore(workers)
        self.priority, self.quick = priority, quick
        self.idle: list[DecodeProcess] = []


class DecodePool:
    """Processes that decode; `decode` may be called from any number of threads.

    Args:
        workers: small images decoded at once, and as many large ones; slow ones come on top.
        max_pixels: of one image; a larger one is refused before it is decoded.
        seconds: of CPU time until decoding one image is given up; other images that wait, or a
            machine that leaves it no time, may end it sooner.
        memory: bytes of address space of a process; None for what `max_pixels` may need.
    """

    def __init__(
        self,
        workers: int,
        *,
        max_pixels: int = MAX_PIXELS,
        seconds: float = SECONDS,
        memory: int | None = None,
    ) -> None:
        self.max_pixels = max_pixels
        self._seconds = seconds
        self._memory = memory or _BASE_MEMORY + _PIXEL_MEMORY * max_pixels
        self._workers = workers
        self._small = _Lane(workers, 0, min(_QUICK, seconds))
        quick = _QUICK_LARGE + _QUICK_PIXEL * max_pixels
        self._large = _Lane(workers, _LOW, min(quick, seconds))
        self._lock = threading.Lock()
        self._slow: list[DecodeProcess] = []
        self._all: set[DecodeProcess] = set()
        self._closed = False

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the processes for small images now; others start when they are first needed.

        Raises:
            FewclipError: one of them does not start.
        """
        if sys.platform != "win32":
            for process in [self._take(self._small) for _ in range(self._workers)]:
                self._put(process, self._small)

    def decode(
        self,
        image: bytes | os.PathLike[str],
        *,
        crop: Preprocess | None = None,
        thumbnail: int | None = None,
    ) -> Decoded:
        """Decode one image; waits for a free process.

        Args:
            image: an encoded image, or the path of one.
            crop: bring it to the model's input.
            thumbnail: side of the square to fit it into, pixels.

        Raises:
            ImageTooLargeError: more than `max_pixels`.
            DecoderBusyError: there was no time for it.
            ImageError: not a readable image, or one that takes too much time or memory.
        """
        found = self.decode_small(image, crop=crop, thumbnail=thumbnail)
        return found or self.decode_large(image, crop=crop, thumbnail=thumbnail)

    def decode_small(
        self,
        image: bytes | os.PathLike[str],
        *,
        crop: Preprocess | None = None,
        thumbnail: int | None = None,
    ) -> Decoded | None:
        """`decode` for an image that is not large; for one that is, None without much delay."""
        if is_large(image):
            return None
        few = min(LARGE_PIXELS, self.max_pixels)
        try:
            return self._decode(self._small, few, image, crop, thumbnail)
        except ImageTooLargeError:
            if few == self.max_pixels:
                raise
            return None

    def decode_large(
        self,
        image: bytes | os.PathLike[str],
        *,
        crop: Preprocess | None = None,
        thumbnail: int | None = None,
    ) -> Decoded:
        """`decode` among the large images."""
        return self._decode(self._large, self.max_pixels, image, crop, thumbnail)

    def image(self, image: bytes | os.PathLike[str], *, thumbnail: int = _WHOLE) -> PILImage.Image:
        """One image upright and RGB; whole, or reduced to fit into a square.

        Raises:
            ImageError: as `decode`.
        """
        pixels = self.decode(image, thumbnail=thumbnail).thumbnail
        assert pixels is not None
        return PILImage.fromarray(pixels)

    def close(self) -> None:
        """Kill all processes; what is being decoded fails."""
        with self._lock:
            self._closed = True
            idle = [*self._small.idle, *self._large.idle]
            self._small.idle, self._large.idle = [], []
            busy = self._all.difference(idle)
        # A pipe is closed by the thread that reads it: if closed here, its descriptor could already
        # be another file's when that thread reads.
        for process in busy:
            process.end()
        for process in idle:
            process.kill()

    def _decode(
        self,
        lane: _Lane,
        max_pixels: int,
        image: bytes | os.PathLike[str],
        crop: Preprocess | None,
        thumbnail: int | None,
    ) -> Decoded:
        if sys.platform == "win32":  # no limits to set there
            return _in_this_process(image, max_pixels, crop, thumbnail)
        request = encode_request(image, max_pixels, crop, thumbnail)
        with self._slot(lane) as give_back:
            process = self._take(lane)
            try:
                return self._ask(process, lane.quick, request, give_back, crop, thumbnail)
            finally:
                self._put(process, lane)

    def _ask(
        self,
        process: DecodeProcess,
        quick: float,
        request: bytes,
        give_back: Callable[[], None],
        crop: Preprocess | None,
        thumbnail: int | None,
    ) -> Decoded:
        ends = process.computed() + self._seconds
        left = process.allow(self._seconds)
        try:
            process.send(request, left)
            if not process.answers_within(process.allow(quick)):
                self._slow_down(process)
                give_back()
            return process.receive(left, crop.size if crop else 0, thumbnail or 0)
        except TimeoutError as error:
            is_dear = process.computed() >= ends
            process.kill()
            raise _too_long(self._seconds) if is_dear else _busy() from error
        except (EOFError, BrokenPipeError) as error:
            process.kill()
            if self._closed:
                raise FewclipError("the decoder was closed") from error
            if process.was_killed:
                raise _busy() from error
            raise ImageError(
                "breaks its decoder, or takes too much memory; save it again, or reduce it"
            ) from error

    def _slow_down(self, process: DecodeProcess) -> None:
        """Let the others pass; if too many images are slow, give up the longest-running."""
        process.lower_priority(_LOWEST)
        with self._lock:
            self._slow.append(process)
            if len(self._slow) > SLOW:
                self._slow.pop(0).end()

    @contextlib.contextmanager
    def _slot(self, lane: _Lane) -> Iterator[Callable[[], None]]:
        """One of the lane's slots; the function gives it back early."""
        lane.slots.acquire()
        given: list[bool] = []

        def give_back() -> None:
            if not given:
                given.append(True)
                lane.slots.release()

        try:
            yield give_back
        finally:
            give_back()

    def _take(self, lane: _Lane) -> DecodeProcess:
        with self._lock:
            if self._closed:
                raise FewclipError("the decoder is closed")
            while lane.idle:
                process = lane.idle.pop()
                if process.alive:
                    return process
                self._all.discard(process)
                process.kill()
            process = DecodeProcess(self._memory, self._seconds, self.max_pixels)
            self._all.add(process)
        if lane.priority:
            process.lower_priority(lane.priority)
        process.start()
        return process

    def _put(self, process: DecodeProcess, lane: _Lane) -> None:
        with self._lock:
            slow = process in self._slow
            if slow:
                self._slow.remove(process)
            # A lowered priority cannot be raised again.
            if process.alive and not slow and not self._closed:
                lane.idle.append(process)
                return
            self._all.discard(process)
        process.kill()


def is_large(image: bytes | os.PathLike[str]) -> bool:
    """Whether a file counts as large by its bytes alone."""
    if isinstance(image, bytes):
        return len(image) >= LARGE
    try:
        return os.stat(image).st_size >= LARGE
    except OSError:  # the decoder says what is wrong with it
        return False


def _too_long(seconds: float) -> ImageError:
    return ImageError(
        f"takes too long to decode (more than {seconds:g} s); save it again, or reduce it"
    )


def _busy() -> DecoderBusyError:
    return DecoderBusyError("the machine had no time to decode it; try again later, or reduce it")


def _in_this_process(
    image: bytes | os.PathLike[str],
    max_pixels: int,
    crop: Preprocess | None,
    thumbnail: int | None,
) -> Decoded:
    spec = None if crop is None else crop_options(crop)
    return Decoded(*reduce_image(decode(image, max_pixels=max_pixels), spec, thumbnail))
