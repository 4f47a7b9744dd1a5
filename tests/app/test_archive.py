"""Untrusted zips: tricks, bombs and broken ones leave nothing behind, honest ones unpack."""

from __future__ import annotations

import io
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fewclip.errors import DataError
from fewclip_app.work import archive
from tests.attacks import hostile_zips

LIMITS = {"max_files": 10, "max_bytes": 100_000}


def refused(path: Path, tmp_path: Path, match: str, **limits: int) -> None:
    target = tmp_path / "target" / "inner"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=match):
        archive.unpack(path, target, **(LIMITS | limits))
    after = [p for p in sorted(tmp_path.rglob("*")) if p != target.parent]
    assert after == before


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "a/../../evil.png",
        "/etc/evil.png",
        "..\\evil.png",
        "a\\..\\..\\evil.png",
        "C:\\evil.png",
        "C:evil.png",
        "\\\\server\\share\\evil.png",
        "//server/evil.png",
    ],
)
def test_a_path_that_leads_out_refuses_the_whole_zip(
    name: str, make_zip: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_zip({"cat/1.png": b"fine", name: b"evil"})
    refused(path, tmp_path, "outside its folder")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_rare_compression_is_refused_before_it_is_tried(method: int, tmp_path: Path) -> None:
    path = tmp_path / "rare.zip"
    with zipfile.ZipFile(path, "w", method) as zipped:
        zipped.writestr("cat/1.png", b"fine" * 100)
    refused(path, tmp_path, "deflate")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(kind: int, tmp_path: Path) -> None:
    path = tmp_path / "links.zip"
    info = zipfile.ZipInfo("cat/passwd.png")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(info, "/etc/passwd")
    refused(path, tmp_path, "a link or a device")


def test_a_bomb_is_refused_by_what_it_says(make_zip: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("cat/1.png", b"\0" * 50_000_000)
    assert path.stat().st_size < 100_000
    refused(path, tmp_path, "50 MB unpacked")


def test_a_bomb_that_lies_about_its_size_is_refused_by_what_it_does(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("cat/1.png", b"\0" * 1_000_000)
    content = bytearray(out.getvalue())
    size = struct.pack("<I", 1_000_000)
    while (at := content.find(size)) >= 0:
        content[at : at + 4] = struct.pack("<I", 10)
    path = tmp_path / "liar.zip"
    path.write_bytes(content)
    refused(path, tmp_path, "zip")


def test_too_many_files_are_refused(make_zip: Callable[..., Path], tmp_path: Path) -> None:
    path = make_zip({f"cat/{i}.png": b"x" for i in range(11)})
    refused(path, tmp_path, "more than 10 files")


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("cat/1.png", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            zipped.writestr("cat/1.png", b"two")
    refused(path, tmp_path, "twice")


def test_a_file_where_a_folder_stands_is_refused(
    make_zip: Callable[..., Path], tmp_path: Path
) -> None:
    refused(make_zip({"cat": b"x", "cat/1.png": b"x"}), tmp_path, "could not be unpacked")


def test_a_name_that_no_disk_takes_is_refused(
    make_zip: Callable[..., Path], tmp_path: Path
) -> None:
    refused(make_zip({f"cat/{'x' * 300}.png": b"x"}), tmp_path, "shorten the names")


def test_a_password_is_refused(make_zip: Callable[..., Path], tmp_path: Path) -> None:
    path = make_zip({"cat/1.png": b"secret"})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # local header's flags
    content[content.find(b"PK\x01\x02") + 8] |= 1  # central directory's
    path.write_bytes(content)
    refused(path, tmp_path, "password")


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04" + b"\0" * 40])
def test_what_is_no_zip_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "not.zip"
    path.write_bytes(content)
    refused(path, tmp_path, "not a zip file")


def test_a_zip_broken_anywhere_is_refused_or_unpacked_but_never_crashes(
    make_zip: Callable[..., Path], tmp_path: Path
) -> None:
    whole = make_zip({"cat/1.png": b"some bytes of an image", "dog/1.png": b"more"}).read_bytes()
    for at in range(len(whole)):
        path = tmp_path / "broken.zip"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        target = tmp_path / f"target-{at}"
        try:
            archive.unpack(path, target, **LIMITS)
        except DataError:
            assert not target.exists()
        else:
            assert target.resolve().is_relative_to(tmp_path)


def test_an_empty_zip_says_what_to_put_in(make_zip: Callable[..., Path], tmp_path: Path) -> None:
    refused(make_zip({}), tmp_path, "one folder of images per class")


def test_litter_is_passed_over_and_the_rest_unpacked(
    make_zip: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_zip(
        {
            "cat/1.png": b"cat",
            "dog\\2.png": b"dog",
            "__MACOSX/cat/._1.png": b"x",
            "cat/.DS_Store": b"x",
            "Thumbs.db": b"x",
        }
    )
    archive.unpack(path, tmp_path / "out", **LIMITS)
    files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert files == {"cat/1.png", "dog/2.png"}
    assert (tmp_path / "out/dog/2.png").read_bytes() == b"dog"


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["photos/cat/1.png", "photos/dog/1.png"], "photos"),
        (["a/b/cat/1.png", "a/b/dog/1.png"], "a/b"),
        (["cat/1.png", "dog/1.png"], "."),
        (["cat/1.png"], "."),
        (["model/card.json", "model/model.safetensors"], "model"),
        (["card.json"], "."),
    ],
)
def test_the_root_lies_below_folders_that_only_wrap(
    names: list[str], root: str, make_zip: Callable[..., Path], tmp_path: Path
) -> None:
    archive.unpack(make_zip(dict.fromkeys(names, b"x")), tmp_path / "out", **LIMITS)
    assert archive.root_of(tmp_path / "out") == (tmp_path / "out" / root)


def test_what_is_packed_unpacks_to_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "card.json").write_text("{}")
    (folder / "weights").write_bytes(b"\0\1\2")
    archive.pack(folder, tmp_path / "model.zip")
    archive.unpack(tmp_path / "model.zip", tmp_path / "out", **LIMITS)
    assert (tmp_path / "out/model/weights").read_bytes() == b"\0\1\2"
    assert (tmp_path / "out/model/card.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (hostile_zips.directory_of_many_entries(), "list of files takes"),
        (hostile_zips.directory_of_long_comments(), "list of files takes"),
        (hostile_zips.zip64(), "Zip64"),
    ],
)
def test_a_directory_is_bounded_before_it_is_read(
    content: bytes, match: str, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.zip"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        refused(path, tmp_path, match)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
