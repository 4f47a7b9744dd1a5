"""An untrusted folder is opened without waiting, without leaving it, and without surprises."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

import fewclip
from fewclip.artifact import read_card
from fewclip.errors import ArtifactError, FewclipError
from fewclip.model_folder import tensor_file
from fewclip.model_folder.model_files import open_inside


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero") / "m"
    fewclip.zero_shot(["cat", "dog"], device="cpu").save(folder)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "m"))


@pytest.mark.parametrize("name", ["card.json", "model.safetensors", "README.md"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "null", "loop", "out"])
def test_what_is_no_file_of_the_folder_is_refused_at_once(
    model: Path, name: str, kind: str, tmp_path: Path
) -> None:
    path = model / name
    shutil.copy(path, tmp_path / "elsewhere")
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"null": "/dev/zero", "loop": name, "out": "../elsewhere"}
        path.symlink_to(targets[kind])
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        read_card(model)


def test_links_within_the_folder_and_to_it_are_followed(model: Path, tmp_path: Path) -> None:
    (model / "..data").mkdir()
    (model / "card.json").rename(model / "..data" / "card.json")
    (model / "card.json").symlink_to("..data/card.json")  # as Kubernetes mounts files
    (tmp_path / "current").symlink_to(model)
    assert fewclip.load(tmp_path / "current", device="cpu").classes == ("cat", "dog")


def test_a_fifo_named_in_a_links_place_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").symlink_to("pipe")
    with pytest.raises(ArtifactError, match="not a regular file"):
        open_inside(tmp_path, "file")


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_every_file_has_the_mode_that_the_umask_gives(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        fewclip.zero_shot(["cat"], device="cpu").save(tmp_path / "m")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "m").iterdir()} == {0o666 & ~mask}


# ---- tensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (2**40).to_bytes(8, "little") + b"{}",
        (16).to_bytes(8, "little") + b'{"a":{"dtype":1}',
        (8).to_bytes(8, "little") + b"[" * 8,
    ],
)
def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.safetensors"):
        tensor_file.read(tmp_path, "x.safetensors")


def test_a_header_is_bounded_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes((9 * 1024**2).to_bytes(8, "little") + b" " * 9 * 1024**2)
    with pytest.raises(ArtifactError, match="header of 9,437,184 bytes"):
        tensor_file.read(tmp_path, "x")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.pop("trained/context"),
        lambda t: t.update({"trained/context": torch.zeros(1)}),
        lambda t: t.update({"trained/context": torch.zeros(16, 256, dtype=torch.int32)}),
        lambda t: t["trained/context"].fill_(float("nan")),
        lambda t: t.update({"trained/other": torch.zeros(1)}),
        lambda t: t.update({"state/other": torch.zeros(1)}),
        lambda t: t.pop("ood/ood_whiten"),
        lambda t: t.update({"ood/ood_means": torch.zeros(0)}),
        lambda t: t.update({"ood/ood_whiten": torch.zeros(3, 3)}),
    ],
)
def test_weights_that_are_not_what_the_card_says_are_refused(
    tuned_dept: fewclip.Classifier, tmp_path: Path, spoil: object
) -> None:
    from fewclip.model_folder import saved_weights

    tuned_dept.save(tmp_path / "m")
    tensors, metadata = tensor_file.read(tmp_path / "m", "model.safetensors")
    spoil(tensors)  # type: ignore[operator]
    (tmp_path / "m" / "model.safetensors").unlink()
    tensor_file.write(tmp_path / "m" / "model.safetensors", tensors, metadata)
    card = read_card(tmp_path / "m", verify=False)
    with pytest.raises(ArtifactError, match="adapt again"):
        saved_weights.read(tmp_path / "m", card, tuned_dept.backbone)


def test_truncated_weights_are_refused_even_where_the_card_was_made_to_fit(model: Path) -> None:
    from forged_cards import resign

    from fewclip.artifact import sha256_file

    path = model / "model.safetensors"
    os.truncate(path, path.stat().st_size - 2)
    resign(model, {("files", path.name): sha256_file(path)})
    with pytest.raises(ArtifactError, match="not a readable safetensors file"):
        fewclip.load(model, device="cpu")
    resign(model, {("files",): {}})
    with pytest.raises(FewclipError, match="incomplete"):
        fewclip.load(model, device="cpu")
