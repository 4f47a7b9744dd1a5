"""Requests that nobody should send: made by hand, varied by a seeded generator. No server here.

Every case is the raw bytes of one connection, so that nothing on the way tidies them up.
"""

from __future__ import annotations

import functools
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from PIL import Image

from tests.attacks import hostile_images

IMAGE_ROUTES = ("/v1/predict", "/predict", "/v1/predict_classes")
ROUTES = (
    *IMAGE_ROUTES,
    "/v1/predict_batch",
    "/v1/model",
    "/v1/docs",
    "/livez",
    "/schema.json",
    "/",
)
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
NASTY = (
    "", " ", "0", "-1", "1e9", "٣", "9" * 5000, "null", "[]", "{}", '"x"', "[[" * 500, "true",
    "nan",
    "\x00", "\ud83d\ude00" * 50, "'; DROP TABLE models; --", "${jndi:ldap://127.0.0.1/x}",
    "{{7*7}}",
    "../../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/x.png", "C:\\con\\con",
    '["\\ud800"]', '["a", "a"]', '[""]', "[1, null]", '{"a": "b"}', "%00%0d%0aX: y", "A" * 300_000,
)  # fmt: skip


class Case(NamedTuple):
    """What to send on one connection, and how.

    Attributes:
        kind: for the report.
        pieces: sent one after the other.
        pause: seconds between pieces.
        hang_up: close without waiting for an answer.
    """

    kind: str
    pieces: list[bytes]
    pause: float = 0.0
    hang_up: bool = False


def cases(seed: int) -> Iterator[Case]:
    """Endless cases, each kind in turn."""
    rng = random.Random(seed)
    makers: list[Callable[[random.Random], Case]] = [
        mutated_image, truncated_image, polyglot, bomb, dear, fields, names, multipart, headers,
        path, chunks, giant, hang_up, slow, pipelined,
    ]  # fmt: skip
    while True:
        for maker in makers:
            yield maker(rng)


# ---- the parts of a good request -------------------------------------------------------------


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    """One part of a multipart body, its boundary in front."""
    file = "" if filename is None else f'; filename="{filename}"'
    disposition = f'Content-Disposition: form-data; name="{name}"{file}'
    return b"--b\r\n" + disposition.encode("utf-8", "replace") + b"\r\n\r\n" + content + b"\r\n"


def request(route: str, body: bytes, *more: str, method: str = "POST") -> bytes:
    """A whole HTTP request."""
    lines = [
        f"{method} {route} HTTP/1.1",
        "Host: localhost",
        "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *more,
    ]
    return "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n" + body


def upload(rng: random.Random, content: bytes) -> bytes:
    """An image sent to a route that takes one."""
    route = rng.choice([*IMAGE_ROUTES, "/v1/predict_batch"])
    name = "images" if route.endswith("batch") else "image"
    body = part(name, content, "photo.jpg") * (rng.randint(1, 4) if name == "images" else 1)
    if route.endswith("classes"):
        body += part("classes", b'["cat", "dog"]')
    return request(route, body + b"--b--\r\n")


def photo(rng: random.Random, kind: str) -> bytes:
    """A small valid image of noise."""
    size = (rng.randint(1, 48), rng.randint(1, 48))
    mode = rng.choice(["RGB", "L"])
    pixels = rng.randbytes(size[0] * size[1] * (3 if mode == "RGB" else 1))
    file = io.BytesIO()
    Image.frombytes(mode, size, pixels).save(file, kind)
    return file.getvalue()


# ---- bad images ------------------------------------------------------------------------------


def mutated_image(rng: random.Random) -> Case:
    kind = rng.choice(FORMATS)
    content = bytearray(photo(rng, kind))
    for _ in range(rng.randint(1, 12)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return Case("mutated image", [upload(rng, bytes(content))])


def truncated_image(rng: random.Random) -> Case:
    content = photo(rng, rng.choice(FORMATS))
    return Case("truncated image", [upload(rng, content[: rng.randrange(len(content))])])


def polyglot(rng: random.Random) -> Case:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../evil.py", "import os")
    script = b"<script>alert(1)</script>"
    content = rng.choice(
        [
            photo(rng, "JPEG") + archive.getvalue(),
            b"GIF89a/*" + script + b"*/=1;",
            photo(rng, "PNG") + script,
            b"%PDF-1.7\n" + photo(rng, "JPEG"),
            b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;',
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file",
            b"push graphic-context\nviewbox 0 0 9 9\nfill 'url(http://127.0.0.1:1/x)'\n",
            b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
            b"8BPS" + rng.randbytes(60),
            b"\x00\x00\x01\x00" + rng.randbytes(60),
            b"RIFF\xff\xff\xff\xffWEBPVP8X" + rng.randbytes(60),
            rng.randbytes(rng.choice([0, 1, 2, 100, 5000])),
        ]
    )
    return Case("polyglot", [upload(rng, content)])


def bomb(rng: random.Random) -> Case:
    side = rng.choice([8_000, 50_000, 2**31 - 1])
    ihdr = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    tags = struct.pack("<H", 3) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in ((256, side), (257, side), (273, 8))
    )
    content = rng.choice(
        [
            b"\x89PNG\r\n\x1a\n"
            + _chunk(b"IHDR", ihdr)
            + _chunk(b"IDAT", zlib.compress(bytes(99))),
            photo(rng, "PNG")[:33] + _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(20_000_000))),
            photo(rng, "PNG")[:33] + _chunk(b"IDAT", zlib.compress(bytes(20_000_000))),
            b"P6 %d %d 255\n" % (side, side) + bytes(100),
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, side, -side, 1, 24, *[0] * 6),
            b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x2c" + b"\xff" * 40,
            b"II*\0\x08\0\0\0" + tags + bytes(8),
            b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01",
        ]
    )
    return Case("bomb", [upload(rng, content)])


def dear(rng: random.Random) -> Case:
    """Files that are cheap to send and expensive to open, and names that are expensive to read."""
    kind = rng.choice(list(_DEAR))
    if kind == "names":
        body = part("image", photo(rng, "JPEG"), "a.jpg")
        body += part("classes", json.dumps(["a\n" * 80_000]).encode()) + b"--b--\r\n"
        return Case("dear: names", [request("/v1/predict_classes", body)])
    return Case(f"dear: {kind}", [upload(rng, _DEAR[kind]())])


_DEAR: dict[str, Callable[[], bytes]] = {
    "tags of a TIFF": lambda: hostile_images.tiff_tags_over_one_block(1000, 500_000),
    "tags of a JPEG": hostile_images.jpeg_with_exif_tag_bomb,
    "tags of a PNG": lambda: hostile_images.png_with_exif_tag_bomb(1000, 500_000),
    "tags of a WebP": lambda: hostile_images.webp_with_exif_tag_bomb(1000, 500_000),
    "scans": lambda: hostile_images.jpeg_of_many_scans(90, 1500),
    "too many scans": lambda: hostile_images.jpeg_of_many_scans(300, 900),
    "comments of a PPM": hostile_images.ppm_of_comments,
    "pixels of a WebP": functools.cache(lambda: hostile_images.webp_of_one_colour(2000)),
    "names": bytes,
}


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


# ---- bad forms -------------------------------------------------------------------------------


def fields(rng: random.Random) -> Case:
    body = part("image", photo(rng, "JPEG"), "x.jpg") if rng.random() < 0.8 else b""
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(
            ["top_k", "classes", "model", "image", "images", "url", rng.choice(NASTY)]
        )
        body += part(name[:999], rng.choice(NASTY).encode("utf-8", "replace"))
    return Case("fields", [request(rng.choice(ROUTES), body + b"--b--\r\n")])


def names(rng: random.Random) -> Case:
    filename = rng.choice(
        [*NASTY[:-1], "a" * 4000, "con", "x\r\nY: z", '"; name="top_k', "\u202e.jpg"]
    )
    body = part("image", photo(rng, "JPEG"), filename)
    return Case("file names", [request(rng.choice(IMAGE_ROUTES), body + b"--b--\r\n")])


def multipart(rng: random.Random) -> Case:
    good = part("image", photo(rng, "JPEG"), "x.jpg")
    body = rng.choice(
        [
            b"", b"--", b"--b", b"--b--", b"--b--\r\n", good, good[:-3],
            b"--b\r\n\r\nx\r\n--b--\r\n",
            good.replace(b"--b\r\n", b"--c\r\n"), b"\r\n" * 999 + good + b"--b--\r\n",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
            b"--b\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\nx\r\n--b--\r\n",
            b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\nx\r\n--b--\r\n",
            part("image", b"x") * 3000 + b"--b--\r\n", good * 60 + b"--b--\r\n",
            good.replace(b'"image"', b'"\xff\xfe"') + b"--b--\r\n",
            b"--b\r\n\xff\xff: \xff\r\n\r\n",
            rng.randbytes(2000), good + rng.randbytes(50),
        ]
    )  # fmt: skip
    kind = rng.choice(
        [
            "multipart/form-data; boundary=b", "multipart/form-data",
            "multipart/form-data; boundary=",
            f"multipart/form-data; boundary={'b' * 300}", 'multipart/form-data; boundary="b',
            "multipart/form-data; charset=zzz; boundary=b", "multipart/mixed; boundary=b",
            "text/html",
            "application/vnd.bentoml+pickle", "application/json", ";", "\xff", "image/png",
        ]
    )  # fmt: skip
    content = request(rng.choice(ROUTES[:4]), body)
    return Case(
        "multipart", [content.replace(b"multipart/form-data; boundary=b", kind.encode(), 1)]
    )


# ---- bad HTTP --------------------------------------------------------------------------------


def headers(rng: random.Random) -> Case:
    body = part("image", photo(rng, "JPEG"), "x.jpg") + b"--b--\r\n"
    line = rng.choice(
        [
            "Content-Length: -1", "Content-Length: 1", "Content-Length: 99999999999999999999",
            "Content-Length: 0x10", "Transfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity", "Expect: 100-continue", "Expect: 200-nonsense",
            "Upgrade: websocket\r\nSec-WebSocket-Key: eA==", "Upgrade: h2c",
            "Connection: keep-alive",
            "Content-Encoding: gzip", "X-Request-ID: a\r\n b", "X-Request-ID: " + "x" * 9000,
            "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: evil", "Host: other",
            "Range: bytes=0-1",
            "X-HTTP-Method-Override: DELETE", "Cookie: " + "a=b;" * 900, "A" * 9000 + ": x", ": x",
            "NoColon", "X: \x00", "X: \x7f\x80", "Authorization: Basic !!!", "Accept: \xff/\xfe",
            "traceparent: 00-" + "f" * 32 + "-" + "0" * 16 + "-zz", "baggage: " + "a=b," * 900,
            "\r\n".join(f"X-{n}: y" for n in range(200)),
        ]
    )  # fmt: skip
    route = rng.choice(ROUTES)
    return Case("headers", [request(route, body, line, method=rng.choice(METHODS[:2]))])


def path(rng: random.Random) -> Case:
    target = rng.choice(
        [
            rng.choice(ROUTES), rng.choice(ROUTES) + "?model=" + "m" * rng.choice([1, 300, 9000]),
            "/v1/predict?model=%00&model=../../x", "/v1/model?model=%ff%fe", "/v1/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd", "//evil/v1/predict", "/v1//predict", "/v1/predict/",
            "/V1/predict",
            "/infer", "/infer/submit", "/predict/submit", "/docs.json", "/static_content/../x",
            "/ui/",
            "/ui/gradio_api/file=/etc/passwd", "/" + "a" * 60_000, "/%", "/%zz", "*",
            "http://evil/x",
            "/\xff", "/v1/predict#x", "/?" + "&".join(f"a{n}=b" for n in range(2000)),
            "/v1/openapi.json",
        ]
    )  # fmt: skip
    return Case("paths and methods", [request(target, b"", method=rng.choice(METHODS))])


def chunks(rng: random.Random) -> Case:
    body = part("image", photo(rng, "JPEG"), "x.jpg") + b"--b--\r\n"
    size = rng.choice(["%x", "0%x", "%x;ext=1", "-%x", "%xg", "0x%x", "fffffffffffffff%x"])
    step = rng.choice([1, 7, 1000])
    coded = b"".join(
        (size % len(piece)).encode() + b"\r\n" + piece + b"\r\n"
        for piece in (body[n : n + step] for n in range(0, len(body), step))
    )
    end = rng.choice([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"\r\n", b""])
    content = request("/v1/predict", b"").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    return Case("chunks", [content + coded + end])


def giant(rng: random.Random) -> Case:
    length = rng.choice([10**8, 10**12])
    head = request("/v1/predict", b"").replace(b"Length: 0", b"Length: %d" % length)
    if rng.random() < 0.5:
        chunked = head.replace(b"Content-Length: %d" % length, b"Transfer-Encoding: chunked")
        chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
        return Case("giant", [chunked, part("image", b"", "x")[:-2], *[chunk] * rng.randint(1, 60)])
    return Case("giant", [head, bytes(rng.choice([0, 100_000]))])


def hang_up(rng: random.Random) -> Case:
    content = upload(rng, photo(rng, "JPEG"))
    return Case("hang up", [content[: rng.randint(0, len(content))]], hang_up=True)


def slow(rng: random.Random) -> Case:
    content = upload(rng, photo(rng, "PNG"))
    cuts = sorted(rng.sample(range(len(content)), 4))
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    return Case("slow", pieces, pause=0.05)


def pipelined(rng: random.Random) -> Case:
    good = upload(rng, photo(rng, "JPEG")).replace(b"Connection: close\r\n", b"")
    last = request("/livez", b"", method="GET")
    return Case("pipelined", [good * rng.randint(1, 4) + last])
