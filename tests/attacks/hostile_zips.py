"""Zip files that are cheap to send and expensive to list. One function each; no image in them."""

from __future__ import annotations

import struct

_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_END = struct.Struct("<4s4H2LH")


def directory_of_many_entries(entries: int = 200_000) -> bytes:
    """A directory of empty files without one of them: a hundred bytes of memory for each byte."""
    entry = _ENTRY.pack(b"PK\x01\x02", 20, 3, 20, 0, *[0] * 4, 0, 0, 0, 9, *[0] * 4, 0, 0)
    directory = b"".join(entry + b"%09d" % number for number in range(entries))
    return directory + _end(min(entries, 65535), len(directory))


def directory_of_long_comments(entries: int = 200, comment: int = 65535) -> bytes:
    """Few files, each with a comment of 64 KB in the directory."""
    fields = [9, 0, comment, 0, 0]
    entry = _ENTRY.pack(b"PK\x01\x02", 20, 3, 20, 0, *[0] * 4, 0, 0, 0, *fields, 0, 0)
    directory = b"".join(entry + b"%09d" % n + bytes(comment) for n in range(entries))
    return directory + _end(entries, len(directory))


def zip64(length: int = 1 << 40) -> bytes:
    """A directory of a terabyte, by the fields for large archives."""
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, length, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    return end64 + locator + _end(65535, 0xFFFFFFFF)


def _end(entries: int, length: int) -> bytes:
    return _END.pack(b"PK\x05\x06", 0, 0, entries, entries, length, 0, 0)
