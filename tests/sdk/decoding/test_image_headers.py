"""What is dear to open is refused before Pillow parses it; what real encoders write is not."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fewclip.decoding.image_headers import MAX_SCANS, check_headers
from fewclip.errors import ImageError
from fewclip.images import FORMATS, load_image
from tests.attacks import hostile_images as attack

BOMBS = [
    (attack.tiff_tags_over_one_block, "bytes of tags"),
    (attack.jpeg_with_exif_tag_bomb, "bytes of tags"),
    (attack.png_with_exif_tag_bomb, "bytes of tags"),
    (attack.webp_with_exif_tag_bomb, "bytes of tags"),
    (attack.jpeg_of_many_scans, "scans"),
    (attack.jpeg_of_empty_segments, "segments"),
    (attack.png_of_empty_chunks, "chunks"),
    (attack.gif_of_comments, "bytes of comments"),
    (attack.ppm_of_comments, "comments"),
    (attack.ppm_of_one_comment, "no size"),
]


@pytest.mark.parametrize(("make", "reason"), BOMBS, ids=[make.__name__ for make, _ in BOMBS])
def test_a_bomb_is_refused_at_once_and_in_little_memory(
    make: Callable[[], bytes], reason: str
) -> None:
    file = make()
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ImageError, match=reason):
        load_image(file)
    took, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 2
    assert peak < 64 << 20


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}])
def test_jpegs_of_encoders_are_read(options: dict[str, object]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (800, 600, 3), np.uint8)  # scans > 64 KB
    exif = Image.Exif()
    exif[0x010E] = "a description " * 100
    file = io.BytesIO()
    icc = os.urandom(200_000)  # several segments
    Image.fromarray(pixels).save(file, "JPEG", exif=exif, icc_profile=icc, comment=b"c", **options)
    assert load_image(file.getvalue()).size == (600, 800)


def test_as_many_scans_as_allowed_are_read() -> None:
    usual = attack.jpeg_of_many_scans(1, 64).count(b"\xff\xda")
    load_image(attack.jpeg_of_many_scans(MAX_SCANS - usual + 1, 64))
    with pytest.raises(ImageError, match="scans"):
        load_image(attack.jpeg_of_many_scans(MAX_SCANS - usual + 2, 64))


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "HEIF"])
def test_formats_with_metadata_are_read(kind: str) -> None:
    image = Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 50).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    more: dict[str, object] = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", "<x/>" * 1000, zip=True)
        more["pnginfo"] = info
    if kind == "GIF":
        more["comment"] = b"made by hand " * 100
    file = io.BytesIO()
    image.save(file, kind, **more)
    check_headers(file)
    assert file.tell() == 0
    assert load_image(file.getvalue()).size == ((200, 300) if "exif" in more else (300, 200))


@pytest.mark.parametrize(
    "header", [b"P6 2 2 255\n", b"P6\n# by hand\n2 #\n2\n255\n", b"P6\t2\r2 255 "]
)
def test_a_ppm_with_a_few_comments_is_read(header: bytes) -> None:
    assert load_image(header + bytes(12)).size == (2, 2)


def test_a_cut_file_is_read_or_refused_in_our_words() -> None:
    for make in (attack.jpeg_of_many_scans, attack.png_of_empty_chunks, attack.gif_of_comments):
        whole = make(1)
        for length in range(1, min(len(whole), 700)):
            with contextlib.suppress(ImageError):
                load_image(whole[:length])


def test_a_format_out_of_the_list_is_refused_until_it_is_named() -> None:
    code = (
        "import io; from PIL import Image; from fewclip.images import load_image\n"
        "b = io.BytesIO(); Image.new('RGB', (4, 4)).save(b, 'JPEG2000')\n"
        "print(load_image(b.getvalue()).size)"
    )

    def run(formats: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"FEWCLIP_FORMATS": formats}
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)

    assert "not an image (JPEG, PNG" in run("").stderr
    assert run("jpeg, JPEG2000").stdout == "(4, 4)\n"
    assert "EPS" in run("EPS,JPEG").stderr


def test_a_heic_photo_is_read_where_pillow_heif_is_installed() -> None:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(file)
    code = (
        "import sys; from fewclip.errors import ImageError; from fewclip.images import load_image\n"
        "def refused():\n"
        "    try: load_image(b'no image')\n"
        "    except ImageError as error: return str(error)\n"
        "before = refused()\n"
        "print(load_image(sys.stdin.buffer.read()).size)\n"
        "print('HEIF' in before, before == refused())"
    )
    done = subprocess.run([sys.executable, "-c", code], input=file.getvalue(), capture_output=True)
    assert done.stdout == b"(64, 48)\nTrue True\n", done.stderr
