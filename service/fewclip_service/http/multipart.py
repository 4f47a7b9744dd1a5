"""A body -> fields and files, counted while it arrives. What a field means is not known here.

Nothing touches the disk, file names are never used, and text is never treated as a file or a URL.
Bytes are counted as they arrive, so a chunked body without a length is bounded too.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from fewclip_service.http.http_errors import APIError

FIELD_BYTES = 256 * 1024  # of one text field; a list of class names fits
_OVERHEAD = 1024 * 1024  # what a body may hold besides one image
_HEADER_BYTES = 8 * 1024  # of one part
_OTHER_PARTS = 16  # parts besides the images


@dataclasses.dataclass(frozen=True)
class Form:
    """A body's content: name -> values, in order. A file is its bytes, or why it was refused."""

    fields: dict[str, list[str]]
    files: dict[str, list[bytes | APIError]]


async def read_form(
    request: Request,
    *,
    image_bytes: int,
    images: int,
    bare: bool,
    body_bytes: int,
    seconds: float,
    take: Callable[[int], None],
) -> Form:
    """Read a multipart body, or one that is the image itself.

    Args:
        image_bytes: limit for one file; a larger one becomes an APIError in its place.
        images: limit on the number of files.
        bare: accept `image/...` as the only file, called `image`.
        body_bytes: limit for all images together.
        seconds: time for the body to arrive.
        take: called with the number of bytes before they are kept.

    Raises:
        APIError: the body is of another kind, broken, too large or too slow.
    """
    limit = min(body_bytes, image_bytes * images) + _OVERHEAD
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    parser: _Parser | _Bare
    if bare and kind.startswith(b"image/"):
        limit, parser = image_bytes, _Bare()
    else:
        boundary = _boundary(kind, options, bare)
        parser = _Parser(boundary, image_bytes=image_bytes, parts=images + _OTHER_PARTS)
    _check_length(request, limit)
    received = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    raise _too_large(limit)
                take(len(chunk))
                parser.feed(chunk)
    except TimeoutError as error:
        message = f"the body did not arrive within {seconds:g} s"
        raise APIError("too_slow", message) from error
    except ClientDisconnect as error:
        raise APIError("gone", "the client went away") from error
    return parser.finish()


def _boundary(kind: bytes, options: dict[bytes, bytes], bare: bool) -> bytes:
    if kind != b"multipart/form-data":
        ways = "send multipart/form-data with a file field"
        if bare:
            ways += " called image, or the image itself with its media type, such as image/jpeg"
        got = kind.decode("latin-1")[:100] or "no media type"
        raise APIError("unsupported_media_type", f"{ways}, not {got}")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 200:
        raise APIError("bad_request", "the multipart boundary is missing or too long")
    return boundary


def _check_length(request: Request, limit: int) -> None:
    """Refuse by the announced length, before a byte is read."""
    with contextlib.suppress(ValueError):
        if int(request.headers.get("content-length", "0")) > limit:
            raise _too_large(limit)


def _too_large(limit: int) -> APIError:
    return APIError("too_large", f"the body has more than {limit:,} bytes; send smaller images")


class _Bare:
    """A body that is the image."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, chunk: bytes) -> None:
        self._data += chunk

    def finish(self) -> Form:
        return Form({}, {"image": [bytes(self._data)]})


class _Parser:
    """Feeds python-multipart and collects what it reports."""

    def __init__(self, boundary: bytes, *, image_bytes: int, parts: int) -> None:
        self._image_bytes = image_bytes
        self._parts_left = parts
        self._fields: dict[str, list[str]] = defaultdict(list)
        self._files: dict[str, list[bytes | APIError]] = defaultdict(list)
        self._header = (bytearray(), bytearray())
        self._name = ""
        self._is_file = False
        self._data = bytearray()
        self._over = False
        self._ended = False
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": lambda data, start, end: self._part_data(data, start, end),
            "on_part_end": self._part_end,
            "on_end": self._end,
        }
        self._parser = self._guarded(MultipartParser, boundary, callbacks)

    def feed(self, chunk: bytes) -> None:
        self._guarded(self._parser.write, chunk)

    def finish(self) -> Form:
        self._guarded(self._parser.finalize)
        if not self._ended:
            raise APIError("bad_request", "the multipart body ends early")
        return Form(dict(self._fields), dict(self._files))

    @staticmethod
    def _guarded(call: Callable[..., Any], *arguments: Any) -> Any:
        # Whatever the parser fails on is in the body, so it is the sender's mistake.
        try:
            return call(*arguments)
        except APIError:
            raise
        except Exception as error:
            raise APIError("bad_request", "the body is not valid multipart/form-data") from error

    def _begin(self) -> None:
        self._parts_left -= 1
        if self._parts_left < 0:
            raise APIError("too_large", "too many parts in the body; send fewer images")
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._header_bytes = 0
        self._data = bytearray()
        self._over = False

    def _add(self, part: int, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > _HEADER_BYTES:
            raise APIError("bad_request", "the headers of a part are too long")
        self._header[part].extend(data)

    def _header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise APIError("bad_request", "a part has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        self._is_file = b"filename" in options

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        limit = self._image_bytes if self._is_file else FIELD_BYTES
        if self._over or len(self._data) + end - start > limit:
            self._over = True
            self._data.clear()
            return
        self._data += data[start:end]

    def _part_end(self) -> None:
        if self._is_file:
            limit = self._image_bytes
            message = f"an image has more than {limit:,} bytes; send a smaller one"
            self._files[self._name].append(
                APIError("too_large", message) if self._over else bytes(self._data)
            )
            return
        if self._over:
            raise APIError("too_large", f"a field has more than {FIELD_BYTES:,} bytes")
        try:
            self._fields[self._name].append(self._data.decode())
        except UnicodeDecodeError as error:
            raise APIError("bad_field", "a field is not UTF-8 text") from error

    def _end(self) -> None:
        self._ended = True
