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
import dataclasses
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image as PILImage

from fewclip.contract import Preprocess
from fewclip.decoding.decode_worker import ANSWER, BROKEN, DONE, MAX_TEXT, REQUEST, TOO_LARGE
from fewclip.errors import FewclipError, ImageError, ImageTooLargeError
from fewclip.images import FORMATS_VARIABLE, MAX_PIXELS, decode
from fewclip.preprocess import Pixels, resize_and_crop

SECONDS = 10.0  # until a decoder is killed
QUICK = 1.0  # seconds after which an image counts as slow
SLOW = 2  # slow images at once; one more, and the slowest is given up
LARGE = 256 << 10  # bytes of a file from which on it counts as large
_LOW = 10  # priority (nice) of large and of slow images
_WHOLE = 1 << 30  # a square that any image fits into
_STARTING = 60.0  # seconds for a process to start, on a machine that is busy
_BASE_MEMORY = 512 << 20  # address space of Python, its libraries and a file
_PIXEL_MEMORY = 24  # bytes a pixel: coefficients, RGBA, what it is laid on, RGB
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT", FORMATS_VARIABLE)


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What came back of one image, uint8 RGB.

    Attributes:
        crop: (size, size, 3), what the model sees, not normalised; as an image given to `predict`
            it is answered like the file. None where it was not asked for.
        thumbnail: (h, w, 3), the whole image within a square. None where it was not asked for.
    """

    crop: Pixels | None
    thumbnail: Pixels | None


class _Lane:
    """Processes that decode files of about one size; `DecodePool` holds its lock.

    Args:
        workers: images decoded at once.
        priority: nice value of the processes.
    """

    def __init__(self, workers: int, priority: int) -> None:
        self.slots = threading.Semaphore(workers)
        self.priority = priority
        self.idle: list[_Process] = []


class DecodePool:
    """Processes that decode; `decode` may be called from any number of threads.

    Args:
        workers: small images decoded at once, and as many large ones; slow ones come on top.
        max_pixels: of one image; more are refused before they are decoded.
        seconds: until decoding one image is given up.
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
        self._slow: list[_Process] = []
        self._all: set[_Process] = set()
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
        request = _request(image, self.max_pixels, crop, thumbnail)
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
        process: _Process,
        request: bytes,
        give_back: Any,
        crop: Preprocess | None,
        thumbnail: int | None,
    ) -> Decoded:
        ends = time.monotonic() + self._seconds
        try:
            process.send(request, ends)
            if not process.answers_by(min(ends, time.monotonic() + QUICK)):
                self._slow_down(process)
                give_back()
            return process.receive(ends, crop.size if crop else 0, thumbnail or 0)
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

    def _slow_down(self, process: _Process) -> None:
        """Let the others pass; of too many slow images the one under way longest is given up."""
        process.lower_priority(_LOW)
        with self._lock:
            self._slow.append(process)
            if len(self._slow) > SLOW:
                self._slow.pop(0).give_up()

    @contextlib.contextmanager
    def _slot(self, lane: _Lane) -> Iterator[Any]:
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

    def _take(self, lane: _Lane) -> _Process:
        with self._lock:
            if self._closed:
                raise FewclipError("the decoder is closed")
            while lane.idle:
                process = lane.idle.pop()
                if process.alive:
                    return process
                self._all.discard(process)
                process.kill()
            process = _Process(self._memory, self._seconds, self.max_pixels)
            self._all.add(process)
        if lane.priority:
            process.lower_priority(lane.priority)
        process.start()
        return process

    def _put(self, process: _Process, lane: _Lane) -> None:
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


class _Process:
    """One decoding process and the two pipes to it."""

    def __init__(self, memory: int, seconds: float, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        plan = json.dumps({"memory": memory, "seconds": seconds + 5})
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "fewclip.decoding.decode_worker", plan],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=worker_environment(),
            bufsize=0,
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._in, self._out = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        os.set_blocking(self._in, False)
        self.pid = self._popen.pid
        self.given_up = False
        self._killing = threading.Lock()

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def start(self) -> None:
        """Wait until it has imported what it needs.

        Raises:
            FewclipError: it did not come up.
        """
        try:
            self._read(ANSWER.size, time.monotonic() + _STARTING)
        except (TimeoutError, EOFError) as error:
            self.kill()
            raise FewclipError(
                f"the decoding process did not start; see what `{sys.executable} -m "
                'fewclip.decoding.decode_worker \'{"memory": 2e9, "seconds": 10}\'` says'
            ) from error

    def lower_priority(self, nice: int) -> None:
        with contextlib.suppress(OSError):  # it has just ended
            os.setpriority(os.PRIO_PROCESS, self.pid, nice)

    def send(self, data: bytes, ends: float) -> None:
        left = memoryview(data)
        while left:
            _wait(self._in, select.POLLOUT, ends)
            left = left[os.write(self._in, left) :]

    def answers_by(self, ends: float) -> bool:
        try:
            _wait(self._out, select.POLLIN, ends)
        except TimeoutError:
            return False
        return True

    def receive(self, ends: float, size: int, side: int) -> Decoded:
        """The answer, of no other shape than was asked for: the process may be in other hands."""
        status, crop_side, height, width, length = ANSWER.unpack(self._read(ANSWER.size, ends))
        if status != DONE:
            text = self._read(min(length, MAX_TEXT), ends).decode("utf-8", "replace")
            if status in (BROKEN, TOO_LARGE):
                raise (ImageTooLargeError if status == TOO_LARGE else ImageError)(text)
            raise FewclipError(f"the decoding process failed: {text}")
        fits = max(height, width) <= side and height * width <= self._max_pixels
        if crop_side != size or not fits or bool(side) != bool(height and width):
            raise EOFError
        crop = self._pixels(size, size, ends) if size else None
        return Decoded(crop, self._pixels(height, width, ends) if side else None)

    def give_up(self) -> None:
        self.given_up = True
        self.end()

    def end(self) -> None:
        """Kill it from any thread; the one that waits for its answer meets the end of the pipe."""
        self._popen.kill()

    def kill(self) -> None:
        """Kill it and close the pipes; for the thread that has it."""
        with self._killing:
            self._popen.kill()
            self._popen.wait()
            for pipe in (self._popen.stdin, self._popen.stdout):
                if pipe is not None:
                    pipe.close()

    def _pixels(self, height: int, width: int, ends: float) -> Pixels:
        data = self._read(height * width * 3, ends)
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)

    def _read(self, size: int, ends: float) -> bytes:
        parts = []
        while size:
            _wait(self._out, select.POLLIN, ends)
            block = os.read(self._out, size)
            if not block:
                raise EOFError
            parts.append(block)
            size -= len(block)
        return b"".join(parts)


def is_large(image: bytes | os.PathLike[str]) -> bool:
    """Whether a file waits among the large ones."""
    if isinstance(image, bytes):
        return len(image) >= LARGE
    try:
        return os.stat(image).st_size >= LARGE
    except OSError:  # the decoder says what is wrong with it
        return False


def _wait(handle: int, what: int, ends: float) -> None:
    poll = select.poll()
    poll.register(handle, what)
    if not poll.poll(max(0.0, ends - time.monotonic()) * 1000):
        raise TimeoutError


def _request(
    image: bytes | os.PathLike[str],
    max_pixels: int,
    crop: Preprocess | None,
    thumbnail: int | None,
) -> bytes:
    order: dict[str, Any] = {"max_pixels": max_pixels}
    if not isinstance(image, bytes):
        order["path"] = os.path.abspath(image)
        image = b""
    if crop is not None:
        order["crop"] = {
            "size": crop.size,
            "interpolation": crop.interpolation,
            "resize_mode": crop.resize_mode,
        }
    if thumbnail is not None:
        order["thumbnail"] = thumbnail
    text = json.dumps(order).encode()
    return REQUEST.pack(len(text), len(image)) + text + image


def _in_this_process(
    image: bytes | os.PathLike[str],
    max_pixels: int,
    spec: Preprocess | None,
    thumbnail: int | None,
) -> Decoded:
    decoded = decode(image, max_pixels=max_pixels)
    seen = None
    if spec is not None:
        options = {"interpolation": spec.interpolation, "resize_mode": spec.resize_mode}
        seen = np.asarray(resize_and_crop(decoded, size=spec.size, **options))
    if thumbnail is None:
        return Decoded(seen, None)
    decoded.thumbnail((thumbnail, thumbnail), PILImage.Resampling.BILINEAR)
    return Decoded(seen, np.asarray(decoded))


def worker_environment() -> dict[str, str]:
    """For a process that opens untrusted files: no tokens or passwords, and one thread; numpy's
    threads would only reserve address space."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    path = os.pathsep.join(part for part in sys.path if part)
    return kept | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
