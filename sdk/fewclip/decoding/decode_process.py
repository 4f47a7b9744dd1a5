"""One decoding process, seen from its parent: start, ask, kill. It decides nothing.

`decode_pool.py` decides which process gets which image, and when one is given up; what runs inside
is `decode_worker.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fewclip.contract import Preprocess
from fewclip.decoding.decode_worker import ANSWER, BROKEN, DONE, MAX_TEXT, REQUEST, TOO_LARGE
from fewclip.errors import DecoderBusyError, FewclipError, ImageError, ImageTooLargeError
from fewclip.images import FORMATS_VARIABLE
from fewclip.preprocess import Pixels

PATIENCE = 6  # an image may take this many times as long by the clock, on a busy machine
_STARTING = 60.0  # seconds for a process to start, on a busy machine
_MOMENT = 0.01  # least number of seconds between two looks at the time left
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT", FORMATS_VARIABLE)

Left = Callable[[], float]  # seconds that are left


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The result of decoding one image, uint8 RGB.

    Attributes:
        crop: (size, size, 3), what the model sees, not normalised; given to `predict`, it gets the
            same answer as the file. None if it was not asked for.
        thumbnail: (h, w, 3), the whole image within a square. None if it was not asked for.
    """

    crop: Pixels | None
    thumbnail: Pixels | None


class DecodeProcess:
    """One process and the two pipes to it; for one thread at a time, except for `end`."""

    def __init__(self, memory: int, seconds: float, max_pixels: int) -> None:
        self._seconds, self._max_pixels = seconds, max_pixels
        plan = json.dumps({"memory": memory, "seconds": seconds + 5})
        with _stop_signals_blocked():
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
        self._killing = threading.Lock()

    @property
    def was_killed(self) -> bool:
        """Whether it was killed from outside, such as by a system out of memory. A process broken
        by its image ends differently: by a fault, or by the alarm that it sets itself."""
        return self._popen.poll() == -signal.SIGKILL

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def start(self) -> None:
        """Wait until it has imported what it needs.

        Raises:
            DecoderBusyError: it did not start in time.
            FewclipError: it ended.
        """
        ends = time.monotonic() + _STARTING
        try:
            self._read(ANSWER.size, lambda: ends - time.monotonic())
        except TimeoutError as error:
            self.kill()
            raise DecoderBusyError(
                f"no decoding process started within {_STARTING:g} s; try again when the machine "
                "is less busy"
            ) from error
        except EOFError as error:
            self.kill()
            raise FewclipError(
                f"the decoding process did not start; see what `{sys.executable} -m "
                'fewclip.decoding.decode_worker \'{"memory": 2e9, "seconds": 10}\'` says'
            ) from error

    def lower_priority(self, nice: int) -> None:
        with contextlib.suppress(OSError):  # it has just ended
            os.setpriority(os.PRIO_PROCESS, self.pid, nice)

    def allow(self, seconds: float) -> Left:
        """Allow this many seconds of the process's CPU time from now on; others' does not count.

        Otherwise a training run, or a few large photos at once, would make a good image a slow one.
        """
        goal, ends = self.computed() + seconds, time.monotonic() + PATIENCE * self._seconds
        return lambda: min(goal - self.computed(), ends - time.monotonic())

    def send(self, data: bytes, left: Left) -> None:
        rest = memoryview(data)
        while rest:
            _wait(self._in, select.POLLOUT, left)
            rest = rest[os.write(self._in, rest) :]

    def answers_within(self, left: Left) -> bool:
        try:
            _wait(self._out, select.POLLIN, left)
        except TimeoutError:
            return False
        return True

    def receive(self, left: Left, size: int, side: int) -> Decoded:
        """The answer, in no other shape than was asked for: the process may have been hijacked."""
        status, crop_side, height, width, length = ANSWER.unpack(self._read(ANSWER.size, left))
        if status != DONE:
            text = self._read(min(length, MAX_TEXT), left).decode("utf-8", "replace")
            if status in (BROKEN, TOO_LARGE):
                raise (ImageTooLargeError if status == TOO_LARGE else ImageError)(text)
            raise FewclipError(f"the decoding process failed: {text}")
        fits = max(height, width) <= side and height * width <= self._max_pixels
        if crop_side != size or not fits or bool(side) != bool(height and width):
            raise EOFError
        crop = self._pixels(size, size, left) if size else None
        return Decoded(crop, self._pixels(height, width, left) if side else None)

    def end(self) -> None:
        """Kill it from any thread; the one that waits for its answer sees the pipe end."""
        self._popen.kill()

    def kill(self) -> None:
        """Kill it and close the pipes; only for the thread that uses it."""
        with self._killing:
            self._popen.kill()
            self._popen.wait()
            for pipe in (self._popen.stdin, self._popen.stdout):
                if pipe is not None:
                    pipe.close()

    def computed(self) -> float:
        """Seconds of CPU time so far; except on Linux, of wall-clock time."""
        if sys.platform != "linux":
            return time.monotonic()
        try:
            return time.clock_gettime(~self.pid << 3 | 2)  # what clock_getcpuclockid(3) gives
        except OSError:  # it has ended; the pipe will show that
            return math.inf

    def _pixels(self, height: int, width: int, left: Left) -> Pixels:
        data = self._read(height * width * 3, left)
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)

    def _read(self, size: int, left: Left) -> bytes:
        parts = []
        while size:
            _wait(self._out, select.POLLIN, left)
            block = os.read(self._out, size)
            if not block:
                raise EOFError
            parts.append(block)
            size -= len(block)
        return b"".join(parts)


def encode_request(
    image: bytes | os.PathLike[str],
    max_pixels: int,
    crop: Preprocess | None,
    thumbnail: int | None,
) -> bytes:
    """The request that makes a process decode one image."""
    order: dict[str, Any] = {"max_pixels": max_pixels}
    if not isinstance(image, bytes):
        order["path"] = os.path.abspath(image)
        image = b""
    if crop is not None:
        order["crop"] = crop_options(crop)
    if thumbnail is not None:
        order["thumbnail"] = thumbnail
    text = json.dumps(order).encode()
    return REQUEST.pack(len(text), len(image)) + text + image


def crop_options(crop: Preprocess) -> dict[str, Any]:
    """The arguments of `resize_and_crop`; normalisation is not the decoder's job."""
    return {
        "size": crop.size,
        "interpolation": crop.interpolation,
        "resize_mode": crop.resize_mode,
    }


def worker_environment() -> dict[str, str]:
    """Environment of a process that opens untrusted files: no tokens or passwords, and one
    thread; numpy's threads would only reserve address space."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    path = os.pathsep.join(part for part in sys.path if part)
    return kept | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """A process started inside this block never gets SIGINT or SIGTERM: it inherits the mask.

    Ctrl-C goes to every process of a terminal, and BentoML's SIGTERM to every process below it.
    They are for the pool's process, which finishes its work and then ends the processes it started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(handle: int, what: int, left: Left) -> None:
    poll = select.poll()
    poll.register(handle, what)
    rest = left()
    while not poll.poll(1000 * max(_MOMENT, min(rest, _STARTING))):
        rest = left()
        if rest <= 0:
            raise TimeoutError
