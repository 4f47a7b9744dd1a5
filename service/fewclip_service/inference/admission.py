"""Admission: how much work and how many bytes a worker accepts before it answers 503. No waiting.

When the queue is full, requests are refused at once: a client that is asked to retry is served
sooner than one that waits in a queue beyond its own timeout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from fewclip_service.http.http_errors import APIError
from fewclip_service.metrics import metrics


class Admission:
    """Counts what one worker has accepted. Lives on the event loop, so it needs no lock.

    Args:
        images: limit on images accepted and not yet answered.
        held: limit on bytes of request bodies in memory.
    """

    def __init__(self, *, images: int, held: int) -> None:
        self._images_left = images
        self._bytes_left = held
        self._waiting = metrics().waiting

    def check(self) -> None:
        """Refuse before the body is read what would be refused afterwards.

        Raises:
            APIError: the queue is full.
        """
        if self._images_left < 1:
            raise _busy()

    @contextlib.contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Reserve room for this many images.

        Raises:
            APIError: the queue is full.
        """
        if images > self._images_left:
            raise _busy()
        self._images_left -= images
        self._waiting.inc(images)
        try:
            yield
        finally:
            self._images_left += images
            self._waiting.dec(images)

    @contextlib.contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """A function that takes bytes from the budget; all are returned to it at the end.

        Raises (the function):
            APIError: other requests hold too many bytes.
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if count > self._bytes_left:
                raise _busy()
            self._bytes_left -= count
            taken += count

        try:
            yield take
        finally:
            self._bytes_left += taken


def _busy() -> APIError:
    return APIError("busy", "the queue is full; try again in a moment")
