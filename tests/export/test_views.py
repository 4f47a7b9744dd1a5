"""The images that an export is proven on: which, how many, and that they are files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import ood_images
from PIL import Image

import fewclip
from fewclip.artifact import sha256_file
from fewclip.preprocess import load_image
from fewclip_export import parity_images
from fewclip_export.parity_images import gather

CARD = fewclip.zero_shot(["red", "blue"]).card


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def own(tmp_path: Path) -> list[tuple[Any, str]]:
    """Three labelled images; the last one's class is not the model's."""
    return list(zip(ood_images(tmp_path, 3), ["red", "blue", "green"], strict=True))


def test_the_own_images_come_first_and_are_completed(own: list[Any], work: Path) -> None:
    proof = gather(None, own, CARD, work, seed=0)
    assert proof.own == 3
    assert list(proof.paths[:3]) == [path for path, _ in own], "files stay where they are"
    assert len(proof.paths) == len(proof.labels) == parity_images.AT_LEAST
    assert proof.labels[:3] == ("red", "blue", None)
    assert proof.labels[3:6] == ("red", "blue", None), "a view keeps the label of its image"
    assert proof.origin == (
        "3 validation images, 185 augmented views of them, 12 odd sizes and modes"
    )
    for path in proof.paths:
        load_image(path)


def test_images_given_come_before_validation_images(own: list[Any], work: Path) -> None:
    proof = gather([(own[0][0], None)], own, CARD, work, seed=0)
    assert proof.own == 1
    assert proof.origin.startswith("1 images given")


def test_images_in_memory_become_files(own: list[Any], work: Path) -> None:
    path = own[0][0]
    with Image.open(path) as picture:
        picture.load()
    forms: list[Any] = [Path(path).read_bytes(), picture, np.asarray(picture)]
    proof = gather([(form, "red") for form in forms], (), CARD, work, seed=0)
    for made in proof.paths[:3]:
        np.testing.assert_array_equal(np.asarray(load_image(made)), np.asarray(picture))


def test_odd_sizes_and_modes_are_really_odd(own: list[Any], work: Path) -> None:
    paths = gather(None, own, CARD, work, seed=0).paths[-12:]
    modes, formats, sizes = set(), set(), set()
    for path in paths:
        with Image.open(path) as picture:
            modes.add(picture.mode)
            formats.add(picture.format)
            sizes.add(picture.size)
    assert {"L", "1", "I;16", "P", "RGBA", "CMYK", "RGB"} <= modes
    assert formats == {"PNG", "JPEG", "GIF"}
    assert {(1, 1), (7, 301), (333, 11)} <= sizes


def test_the_same_seed_gives_the_same_files(own: list[Any], tmp_path: Path) -> None:
    hashes = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        proof = gather(None, own, CARD, tmp_path / name, seed)
        hashes.append([sha256_file(path) for path in proof.paths])
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_too_many_are_sampled_in_order(
    own: list[Any], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity_images, "AT_MOST", 50)
    many = [(own[0][0] if i % 2 else own[1][0], "red") for i in range(120)]
    proof = gather(None, many, CARD, work, seed=0)
    assert proof.own == 50
    assert len(proof.paths) == parity_images.AT_LEAST


def test_the_card_remembers_files_that_are_still_the_same(own: list[Any], work: Path) -> None:
    root = Path(own[0][0]).parent
    entries = [
        {"path": Path(path).name, "label": label, "sha256": sha256_file(path)}
        for path, label in own
    ]
    card = dataclasses.replace(CARD, data={"source": str(root), "validation_files": entries})
    proof = gather(None, (), card, work, seed=0)
    assert [Path(p).name for p in proof.paths[:3]] == [entry["path"] for entry in entries]
    Path(own[0][0]).write_bytes(b"changed")
    Path(own[1][0]).unlink()
    proof = gather(None, (), card, work, seed=0)
    assert proof.own == 1
    assert Path(proof.paths[0]).name == entries[2]["path"]
    assert proof.origin.startswith("1 validation images")


def test_with_no_image_at_all_pictures_are_generated(work: Path) -> None:
    proof = gather(None, (), CARD, work, seed=0)
    assert proof.own == 0
    assert set(proof.labels) == {None}
    assert len(proof.paths) == 212
    contents = {sha256_file(path) for path in proof.paths[:200]}
    assert len(contents) == 200
