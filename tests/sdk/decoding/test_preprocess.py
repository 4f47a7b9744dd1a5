"""Preprocessing equals open_clip's to the bit where it should, and differs where it says so."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from fewclip.contract import Preprocess
from fewclip.errors import ImageError, ImageTooLargeError, OptionError
from fewclip.images import MAX_ASPECT
from fewclip.images import Image as AnyImage
from fewclip.preprocess import (
    augment,
    load_image,
    preprocess,
    random_box,
    reduce_for_training,
    to_input,
)

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = [(64, 64), (1, 1), (3, 2), (63, 65), (65, 64), (101, 67), (67, 101), (640, 479), (7, 333)]


def make_spec(**changes: Any) -> Preprocess:
    return dataclasses.replace(Preprocess(size=64, mean=MEAN, std=STD), **changes)


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [64, 51])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_equals_open_clip_to_the_bit(
    size: tuple[int, int], side: int, resize_mode: str, interpolation: str
) -> None:
    image = Image.fromarray(noise(*size))
    theirs = image_transform(
        side,
        is_train=False,
        mean=MEAN,
        std=STD,
        resize_mode=resize_mode,
        interpolation=interpolation,
    )
    spec = make_spec(size=side, resize_mode=resize_mode, interpolation=interpolation)
    ours = to_input(load_image(encoded(image)), spec)
    assert ours.dtype == np.float32
    assert ours.shape == (3, side, side)
    assert ours.flags.c_contiguous
    np.testing.assert_array_equal(ours, theirs(image).numpy())


def test_every_form_of_one_image_gives_the_same_input(tmp_path: Path) -> None:
    pixels = noise(90, 70)
    path = tmp_path / "ä picture.png"
    Image.fromarray(pixels).save(path)
    mirrored_twice = pixels[:, ::-1][:, ::-1]
    forms: list[AnyImage] = [str(path), path, path.read_bytes(), Image.open(path)]
    forms += [pixels, mirrored_twice]
    batch = preprocess(forms, make_spec(), workers=3)
    assert batch.shape == (len(forms), 3, 64, 64)
    np.testing.assert_array_equal(batch, np.broadcast_to(batch[:1], batch.shape))


def test_a_batch_keeps_its_order_whatever_the_threads() -> None:
    images = [noise(70 + i, 80, seed=i) for i in range(20)]
    alone = np.stack([to_input(load_image(image), make_spec()) for image in images])
    np.testing.assert_array_equal(preprocess(images, make_spec(), workers=4), alone)
    np.testing.assert_array_equal(preprocess(images, make_spec(), workers=1), alone)
    assert preprocess([], make_spec()).shape == (0, 3, 64, 64)


def test_one_opened_picture_may_be_read_by_many_threads() -> None:
    opened = Image.open(io.BytesIO(encoded(Image.fromarray(noise(1200, 900)), "JPEG")))
    batch = preprocess([opened] * 16, make_spec(), workers=8)
    np.testing.assert_array_equal(batch, np.broadcast_to(batch[:1], batch.shape))


def test_the_callers_picture_is_left_as_it_is() -> None:
    given = Image.fromarray(noise(40, 30)).convert("RGBA")
    before = given.tobytes()
    load_image(given)
    assert (given.mode, given.size, given.tobytes()) == ("RGBA", (40, 30), before)


# Deviations from open_clip, each on purpose.


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32] = (255, 0, 0)  # red at the top left, green at the top right
    upright[:16, 32:] = (0, 255, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    kinds: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "PNG": {},
        "WEBP": {"lossless": True},
        "TIFF": {},
    }
    for kind, options in kinds.items():
        file = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
        seen = np.asarray(load_image(file))
        np.testing.assert_allclose(seen, upright, atol=3 if kind == "JPEG" else 0, err_msg=kind)


def test_a_broken_exif_block_does_not_cost_the_picture() -> None:
    picture = Image.fromarray(noise(20, 10))
    file = encoded(picture, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7fgarbage")
    np.testing.assert_array_equal(np.asarray(load_image(file)), np.asarray(picture))


def test_transparent_pixels_stand_on_white() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgba[0, 1] = (10, 20, 30, 0)
    rgba[1, 0] = (0, 0, 0, 128)
    rgba[1, 1] = (255, 0, 0, 255)
    seen = np.asarray(load_image(encoded(Image.fromarray(rgba))))
    assert seen.tolist() == [[[10, 20, 30], [255, 255, 255]], [[127, 127, 127], [255, 0, 0]]]


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    rgb = Image.fromarray(noise(30, 20))
    rgba = rgb.copy()
    rgba.putalpha(255)
    np.testing.assert_array_equal(np.asarray(load_image(rgba)), np.asarray(rgb))


def test_palette_is_converted_before_it_is_resized() -> None:
    palette = Image.fromarray(noise(90, 70)).quantize(16)
    as_rgb = palette.convert("RGB")
    ours = to_input(load_image(encoded(palette)), make_spec())
    np.testing.assert_array_equal(ours, to_input(as_rgb, make_spec()))
    theirs = image_transform(64, is_train=False, mean=MEAN, std=STD)
    assert np.abs(ours - theirs(palette).numpy()).max() > 0.1  # the deviation is real


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L")
    palette.putpalette([9, 9, 9, 200, 100, 50])
    seen = np.asarray(load_image(encoded(palette, transparency=transparency)))
    assert seen.tolist() == [[[255, 255, 255], [200, 100, 50]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 32768], [40000, 65278, 65535]], np.uint16)
    seen = np.asarray(load_image(encoded(Image.fromarray(values), kind)))
    assert seen.shape == (2, 3, 3)
    assert seen[..., 0].tolist() == [[0, 1, 128], [156, 254, 255]]
    assert (seen == seen[..., :1]).all()


def test_float_grey_from_0_to_1_is_scaled_and_other_ranges_are_refused() -> None:
    ramp = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert np.asarray(load_image(encoded(ramp, "TIFF")))[0, :, 0].tolist() == [0, 128, 255]
    for wrong in (300.0, -1.0, float("nan")):
        image = Image.fromarray(np.array([[0.0, wrong]], np.float32))
        with pytest.raises(ImageError, match="8 or 16 bits"):
            load_image(encoded(image, "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "RGBA", "HSV"])
def test_other_colour_modes_are_seen_as_pillow_shows_them(mode: str) -> None:
    image = Image.fromarray(noise(33, 21)).convert(mode)
    seen = load_image(image)
    assert seen.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg() -> None:
    file = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = np.asarray(load_image(file))[8, 8]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (12, 10), c) for c in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(file)), "n_frames", 1) == 3
    np.testing.assert_array_equal(np.asarray(load_image(file)), np.asarray(frames[0]))


# Refusals.


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated_is_refused_and_named(tmp_path: Path, kind: str, part: float) -> None:
    whole = encoded(Image.fromarray(noise(90, 70)), kind)
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ImageError, match=path.name):
        load_image(path)


def bomb(side: int) -> bytes:
    """A black PNG of side x side pixels, 1 bit each, as small as zlib makes it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + side // 8) * side))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    # Pillow only warns of the first and refuses the second itself.
    paths = [tmp_path / "bomb144.png", tmp_path / "bomb400.png"]
    for path, side in zip(paths, (12_000, 20_000), strict=True):
        path.write_bytes(bomb(side))
        assert path.stat().st_size < 60_000
        with pytest.raises(ImageTooLargeError, match=f"{path.name}: .* pixels"):
            load_image(path)
    # In a process without the memory that decoding takes, and where warnings are no errors.
    script = (
        "import resource, sys\n"
        "from fewclip.preprocess import load_image\n"
        "from fewclip.errors import ImageError\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (100 << 20,) * 2)\n"
        "for path in sys.argv[1:]:\n"
        "    try: load_image(path)\n"
        "    except ImageError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert "bomb144.png: 12000 x 12000 pixels" in done.stdout, done.stderr
    assert "bomb400.png: more than the 89,478,485 pixels allowed" in done.stdout


@pytest.mark.parametrize("form", ["bytes", "array", "PIL image"])
def test_the_limit_of_pixels_is_the_callers(form: str) -> None:
    pixels = noise(30, 20)
    forms: dict[str, AnyImage] = {
        "bytes": encoded(Image.fromarray(pixels)),
        "array": pixels,
        "PIL image": Image.fromarray(pixels),
    }
    image = forms[form]
    assert load_image(image, max_pixels=600).size == (30, 20)
    with pytest.raises(ImageTooLargeError, match="30 x 20 pixels, more than the 599 allowed"):
        load_image(image, max_pixels=599)
    with pytest.raises(ImageError, match="599"):
        preprocess([image], make_spec(), max_pixels=599)


def test_a_strip_that_would_explode_when_resized_is_refused() -> None:
    with pytest.raises(ImageError, match="strip"):
        load_image(encoded(Image.new("L", (MAX_ASPECT + 1, 1))))
    widest = load_image(encoded(Image.new("L", (MAX_ASPECT, 1))))
    assert to_input(widest, make_spec()).shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "empty"),
        (b"just text", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
        (np.zeros((4, 4), np.uint8), "RGB uint8"),
        (np.zeros((4, 4, 3), np.float32), "RGB uint8"),
        (np.zeros((0, 4, 3), np.uint8), "RGB uint8"),
        ("no/such/file.jpg", "no/such/file.jpg: no such file"),
        ("nul\0.jpg", "cannot be read"),
        (42, "an int is not an image|a int is not an image"),
    ],
)
def test_what_is_no_image_is_refused(image: object, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        load_image(image)  # type: ignore[arg-type]


def test_folders_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path, tmp_path / "pipe.jpg", "/dev/zero"):
        with pytest.raises(ImageError, match="not an image file"):
            load_image(path)


def test_a_name_given_stands_in_the_message() -> None:
    with pytest.raises(ImageError, match=r"^cat\[3\]: "):
        load_image(b"nothing", name="cat[3]")


@pytest.mark.parametrize("changes", [{"interpolation": "lanczos"}, {"resize_mode": "longest"}])
def test_preprocessing_that_is_not_known_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=next(iter(changes.values()))):
        to_input(Image.new("RGB", (9, 9)), make_spec(**changes))


# Training.


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (97, 63), (300, 200)])
def test_augmentation_equals_torchvisions_for_the_same_box(size: tuple[int, int]) -> None:
    pixels, spec, flips = noise(*size), make_spec(), 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        top, left, height, width = random_box(size[1], size[0], rng)
        crop = F.resized_crop(
            Image.fromarray(pixels), top, left, height, width, [64, 64], InterpolationMode.BICUBIC
        )
        if rng.random() < 0.5:
            crop, flips = F.hflip(crop), flips + 1
        expected = F.normalize(F.to_tensor(crop), list(MEAN), list(STD)).numpy()
        ours = augment(pixels, spec, np.random.default_rng(seed))
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, expected)
    assert 0 < flips < 12


@pytest.mark.parametrize(("height", "width"), [(200, 300), (40, 400), (1, 1)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    torch.manual_seed(0)
    canvas = torch.empty(3, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(canvas, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(1500)]
    )
    rng = np.random.default_rng(0)
    ours = np.array([random_box(height, width, rng) for _ in range(1500)])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= (height, width)).all()
    # Seeded on both sides; the means of 1500 draws differ by about 2 % of the side.
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.03 * max(height, width))
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=0.03 * max(height, width))


def test_large_images_are_kept_reduced_and_small_ones_as_they_are() -> None:
    spec = make_spec(size=16)
    small = noise(64, 70)
    kept = reduce_for_training(Image.fromarray(small), spec)
    np.testing.assert_array_equal(kept, small)
    large = Image.fromarray(noise(200, 130))
    reduced = reduce_for_training(large, spec)
    assert reduced.shape == (64, 98, 3)
    expected = np.asarray(large.resize((98, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(reduced, expected)
