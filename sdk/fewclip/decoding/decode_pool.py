"""Decoding untrusted images in processes that may be killed. No torch, no HTTP.

    with DecodePool(2, max_pixels=50_000_000) as pool:
        pixels = pool.decode(data, crop=card.preprocessing).crop  # (size, size, 3) uint8

A decoder is C code over hostile bytes: it may crash, take all memory or never return. Here it runs
in a process with a limit on its memory and a deadline, without this process's secrets, and only
pixels come back. Large files are decoded by processes of their own, at a low priority, and so is
what takes longer than a moment: neither keeps small images waiting.
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
from fewclip.errors import FewclipError, ImageError
from fewclip.images import MAX_PIXELS, decode

SECONDS = 10.0  # of a process's own time until it is killed
QUICK = 1.0  # seconds of it after which an image counts as slow
SLOW = 2  # slow images at once; one more, and the slowest is given up
LARGE = 256 << 10  # bytes of a file from which on it counts as large
_LOW = 10  # priority (nice) of large and of slow images
_WHOLE = 1 << 30  # a square that any image fits into
_BASE_MEMORY = 512 << 20  # address space of Python, its libraries and a file
_PIXEL_MEMORY = 24  # bytes a pixel: coefficients, RGBA, what it is laid on, RGB


class _Lane:
    """Processes that decode files of about one size; `DecodePool` holds its lock.

    Args:
        workers: images decoded at once.
        priority: nice value of the processes.
    """

    def __init__(self, workers: int, priority: int) -> None:
        self.slots = threading.Semaphore(workers)
        self.priority = priority
        self.idle: list[DecodeProcess] = []


class DecodePool:
    """Processes that decode; `decode` may be called from any number of threads.

    Args:
        workers: small images decoded at once, and as many large ones; slow ones come on top.
        max_pixels: of one image; more are refused before they are decoded.
        seconds: of processor time until decoding one image is given up.
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
        self._small, self._large = _Lane(workers, 0), _Lane(workers, _LOW)
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
            FewclipError: one does not come up.
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
            ImageError: no readable image, or one that took too much time or memory.
        """
        if sys.platform == "win32":  # no limits to set there
            return _in_this_process(image, self.max_pixels, crop, thumbnail)
        request = encode_request(image, self.max_pixels, crop, thumbnail)
        lane = self._large if is_large(image) else self._small
        with self._slot(lane) as give_back:
            process = self._take(lane)
            try:
                return self._ask(process, request, give_back, crop, thumbnail)
            finally:
                self._put(process, lane)

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
        # A pipe is closed by the thread that reads it: closed under it, its number may be another
        # file's by then.
        for process in busy:
            process.end()
        for process in idle:
            process.kill()

    def _ask(
        self,
        process: DecodeProcess,
        request: bytes,
        give_back: Callable[[], None],
        crop: Preprocess | None,
        thumbnail: int | None,
    ) -> Decoded:
        left = process.allow(self._seconds)
        try:
            process.send(request, left)
            if not process.answers_within(process.allow(min(QUICK, self._seconds))):
                self._slow_down(process)
                give_back()
            return process.receive(left, crop.size if crop else 0, thumbnail or 0)
        except (TimeoutError, EOFError, BrokenPipeError) as error:
            process.kill()
            if self._closed:
                raise FewclipError("the decoder was closed") from error
            late = isinstance(error, TimeoutError) or process.given_up
            raise ImageError(
                f"takes too long to decode (more than {self._seconds:g} s, or others waited)"
                "; save it again, or reduce it"
                if late
                else "breaks its decoder, or takes too much memory; save it again, or reduce it"
            ) from error

    def _slow_down(self, process: DecodeProcess) -> None:
        """Let the others pass; of too many slow images the one under way longest is given up."""
        process.lower_priority(_LOW)
        with self._lock:
            self._slow.append(process)
            if len(self._slow) > SLOW:
                self._slow.pop(0).give_up()

    @contextlib.contextmanager
    def _slot(self, lane: _Lane) -> Iterator[Callable[[], None]]:
        """One of the lane's turns; the function gives it back early."""
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
            fits = lane.priority > 0 or not slow
            if process.alive and fits and not self._closed:
                lane.idle.append(process)
                return
            self._all.discard(process)
        process.kill()


def is_large(image: bytes | os.PathLike[str]) -> bool:
    """Whether a file waits among the large ones."""
    if isinstance(image, bytes):
        return len(image) >= LARGE
    try:
        return os.stat(image).st_size >= LARGE
    except OSError:  # the decoder says what is wrong with it
        return False


def _in_this_process(
    image: bytes | os.PathLike[str],
    max_pixels: int,
    crop: Preprocess | None,
    thumbnail: int | None,
) -> Decoded:
    spec = None if crop is None else crop_options(crop)
    return Decoded(*reduce_image(decode(image, max_pixels=max_pixels), spec, thumbnail))
