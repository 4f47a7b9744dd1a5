"""Checks an image file's container before Pillow parses it. Decodes no pixels; no torch.

Pillow copies what a header points at and walks what a header counts, before anybody has asked for
a pixel. A few megabytes can make that gigabytes or minutes: a thousand TIFF tags over one block of
bytes, nine hundred scans of a progressive JPEG, a hundred thousand comments in a plain PPM. What
is counted here is cheap to count. Files broken in other ways are left for Pillow to refuse.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from fewclip.errors import ImageError

MAX_SCANS = 100  # of a JPEG; encoders write about ten
MAX_METADATA = 32 << 20  # bytes; the depth maps of phones take a few megabytes
MAX_EXIF = 4 << 20  # bytes; one JPEG segment holds 64 KB, and joining them takes quadratic time
MAX_COMMENTS = 1 << 20  # bytes of a GIF before its first image; joined one by one, as above

_MAX_SEGMENTS = 10_000  # of a JPEG before its pixels
_MAX_CHUNKS = 100_000  # of a PNG; 8 KB of pixels each is usual
_MAX_TAGS = 4096  # of a TIFF directory
_MAX_VALUES = 1 << 20  # numbers in the tags of a TIFF directory: a strip needs two
_MAX_RATIONALS = 10_000  # each becomes an object of half a kilobyte
_MAX_PPM_HEADER = 64 << 10  # bytes, read one by one
_MAX_PPM_COMMENTS = 1000  # of a plain PPM; each moves all that follows it
_SHARED = 64 << 10  # bytes that honest tags may share

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*")
_TYPE_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
}
_BYTES = {1, 2, 6, 7}
_RATIONALS = {5, 10}

_SOI, _EOI, _SOS, _APP1, _APP2, _COMMENT = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0xFE
_APPS = range(0xE0, 0xF0)
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_SEQUENTIAL = {0xC0, 0xC1, 0xC9}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# In the pixels 0xFF is followed by 0, by a restart marker or by more of its kind.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# "P6", then two numbers, or three if the maximum value is given, comments between them.
_PPM = r"P\S{{1,5}}(?:(?:\s|#[^\r\n]*[\r\n])*+[0-9.+-]++){{{numbers}}}"


def check_headers(file: IO[bytes]) -> None:
    """Refuse a file that is too costly to parse; it is left at its start.

    Raises:
        ImageError: too many scans, tags, chunks or comments, or too many bytes of metadata.
    """
    file.seek(0)
    head = file.read(12)
    # A truncated file raises these; Pillow reports it in its own words.
    with contextlib.suppress(struct.error, IndexError):
        if head[:3] == b"\xff\xd8\xff":
            file.seek(0)
            _check_jpeg(file.read())
        elif head[:4] in _TIFF:
            _check_directory(file, MAX_METADATA)
        elif head[:8] == b"\x89PNG\r\n\x1a\n":
            _check_png(file)
        elif head[:6] in (b"GIF87a", b"GIF89a"):
            _check_gif(file)
        elif head[:1] == b"P" and head[1:2] in b"0123456fy":
            _check_ppm(file, head[1:2])
    file.seek(0)


def check_exif(exif: bytes) -> None:
    """Refuse an EXIF block that is too large, or whose tags point at more than it holds.

    Raises:
        ImageError: it is such a block.
    """
    block = exif.removeprefix(b"Exif\0\0")
    _limit(len(block), MAX_EXIF, "bytes of EXIF")
    with contextlib.suppress(struct.error):  # a broken block is ignored; the pixels are fine
        _check_directory(BytesIO(block), MAX_EXIF)


def _check_jpeg(data: bytes) -> None:
    """Count what comes before the pixels, then the scans where there can be more than one."""
    exif, metadata, sequential, parts, scans = b"", 0, False, 0, 0
    for count, (marker, start, end) in enumerate(_segments(data)):
        _limit(count, _MAX_SEGMENTS, "segments")
        if marker in _FRAMES:
            sequential, parts = marker in _SEQUENTIAL, data[start + 5]
        elif marker == _SOS:
            scans += 1
            _limit(scans, MAX_SCANS, "scans")
            if sequential and data[start] == parts:
                break  # a decoder needs no second scan, and reads none
        elif marker in _APPS or marker == _COMMENT:
            metadata += end - start
            _limit(metadata, MAX_METADATA, "bytes of metadata")
            if marker == _APP1 and data[start : start + 6] == b"Exif\0\0":
                exif += data[start + 6 : end]
                _limit(len(exif), MAX_EXIF, "bytes of EXIF")
            elif marker == _APP2 and data[start : start + 4] == b"MPF\0":
                check_exif(data[start + 4 : end])
    check_exif(exif)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of every segment's content, up to the end of the image."""
    position, stray, in_scans = 0, 0, False
    while found := _MARKER.search(data, position):
        stray += found.start() - position
        if not in_scans:  # between headers Pillow reads byte by byte, within scans it does not
            _limit(stray, _SHARED, "stray bytes")
        marker, start = data[found.end() - 1], found.end() + 2
        if marker == _EOI:
            return
        if marker in _BARE:
            start = end = found.end()
        else:
            end = start - 2 + int.from_bytes(data[start - 2 : start], "big")
        yield marker, start, end
        in_scans |= marker == _SOS
        position = max(start, end)


def _check_directory(file: IO[bytes], most: int) -> None:
    """The first directory of a TIFF file or an EXIF block: what its tags make a reader copy."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    entry = struct.Struct(order + ("HHQ8s" if big else "HHL4s"))
    (offset,) = struct.unpack_from(order + ("Q" if big else "L"), head, 8 if big else 4)
    if offset >= size:
        return
    file.seek(offset)
    (tags,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    _limit(tags, _MAX_TAGS, "tags")
    entries = file.read(tags * entry.size)
    copied = numbers = rationals = 0
    for _, kind, count, _ in entry.iter_unpack(entries[: len(entries) // entry.size * entry.size]):
        taken = count * _TYPE_SIZES.get(kind, 0)
        if taken <= (8 if big else 4) or taken > size:  # within the entry, or not there to copy
            continue
        copied += taken
        numbers += count if kind not in _BYTES else 0
        rationals += count if kind in _RATIONALS else 0
    _limit(copied, min(most, size + _SHARED), "bytes of tags")
    _limit(numbers, _MAX_VALUES, "values in its tags")
    _limit(rationals, _MAX_RATIONALS, "fractions in its tags")


def _check_png(file: IO[bytes]) -> None:
    """Chunks, and the bytes of those that hold no pixels. Pillow limits what they inflate to."""
    file.seek(8)
    metadata = 0
    for count in itertools.count():
        _limit(count, _MAX_CHUNKS, "chunks")
        length, kind = struct.unpack(">L4s", file.read(8))
        if kind == b"IEND":
            return
        if kind not in (b"IDAT", b"fdAT"):
            metadata += length
            _limit(metadata, MAX_METADATA, "bytes of metadata")
        file.seek(length + 4, 1)


def _check_gif(file: IO[bytes]) -> None:
    """Extensions before the first image, which are read in pieces of at most 255 bytes."""
    file.seek(10)
    (flags,) = file.read(1)
    file.seek(13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0))
    taken = pieces = 0
    while file.read(1) == b"!":
        file.read(1)
        while (length := file.read(1)[0]) != 0:
            taken, pieces = taken + length, pieces + 1
            _limit(taken, MAX_COMMENTS, "bytes of comments")
            _limit(pieces, MAX_COMMENTS // 32, "pieces of comments")
            file.seek(length, 1)


def _check_ppm(file: IO[bytes], kind: bytes) -> None:
    """The header's comments, and all of a file that is plain text."""
    file.seek(0)
    header = file.read(_MAX_PPM_HEADER)
    numbers = 2 if kind in b"14" else 3
    if re.match(_PPM.format(numbers=numbers).encode(), header) is None:
        raise ImageError(f"no size in its first {_MAX_PPM_HEADER >> 10} KB; save it again")
    if kind in b"123":
        comments = header.count(b"#")
        while block := file.read(1 << 20):
            comments += block.count(b"#")
        _limit(comments, _MAX_PPM_COMMENTS, "comments")


def _limit(found: int, most: int, what: str) -> None:
    if found > most:
        raise ImageError(
            f"more than the {most:,} {what} that an image may hold; save it again without metadata"
        )
