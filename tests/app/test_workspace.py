"""One person's images: verified, limited, kept apart from the names people give them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fewclip.errors import DataError, FewclipError
from fewclip_app.settings import Settings
from fewclip_app.work import training
from fewclip_app.work.workspace import Workspace


def png(colour: str = "red", size: tuple[int, int] = (20, 10)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def upload(folder: Path, name: str, content: bytes) -> tuple[Path, str]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name, name


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "mine", Settings(max_files=6, max_pixels=10_000))


def test_good_files_are_kept_and_bad_ones_named_with_the_reason(
    workspace: Workspace, tmp_path: Path
) -> None:
    key = workspace.drafts[0].key
    files = [
        upload(tmp_path / "up", "good.png", png()),
        upload(tmp_path / "up", "text.png", b"no image"),
        upload(tmp_path / "up", "huge.png", png(size=(200, 100))),
        upload(tmp_path / "up", "empty.jpg", b""),
    ]
    workspace.add_photos(key, files)
    draft = workspace.draft(key)
    assert [photo.source for photo in draft.photos] == ["good.png"]
    told = {each.source: each.reason for each in draft.refused}
    assert "not an image" in told["text.png"]
    assert "10,000" in told["huge.png"]
    assert "empty" in told["empty.jpg"]
    kinds = {path.name.partition("-")[0] for path in workspace.store.folder.iterdir()}
    assert kinds == {"image", "thumb"}  # uploads under their own names are Gradio's to delete
    assert draft.photos[0].path.read_bytes() == png()


def test_no_more_images_than_allowed(workspace: Workspace, tmp_path: Path) -> None:
    one, two = (draft.key for draft in workspace.drafts)
    workspace.add_photos(one, [upload(tmp_path / "up", f"{i}.png", png()) for i in range(4)])
    workspace.add_photos(two, [upload(tmp_path / "up", f"{i}.png", png()) for i in range(4)])
    assert workspace.count() == 6
    assert [each.reason for each in workspace.draft(two).refused] == [
        "no more than 6 images are allowed"
    ] * 2
    workspace.remove_draft(one)  # makes room again
    workspace.add_photos(two, [upload(tmp_path / "up", "a.png", png())])
    assert workspace.count() == 3
    assert not workspace.draft(two).refused


def test_no_more_bytes_than_allowed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "mine", Settings(max_total_bytes=len(png()) + 10))
    key = workspace.drafts[0].key
    workspace.add_photos(key, [upload(tmp_path / "up", f"{i}.png", png()) for i in range(2)])
    assert workspace.count() == 1
    assert "no room" in workspace.draft(key).refused[0].reason


def test_a_class_name_never_becomes_a_path(workspace: Workspace, tmp_path: Path) -> None:
    draft = workspace.add_draft("../../evil")
    workspace.add_photos(draft.key, [upload(tmp_path / "up", "evil.php", png())])
    made = [p for p in workspace.store.folder.rglob("*") if p.is_file()]
    assert len(made) == 2
    assert not any("evil" in str(p.relative_to(tmp_path)) for p in made)


def test_an_image_that_is_removed_is_deleted(workspace: Workspace, tmp_path: Path) -> None:
    key = workspace.drafts[0].key
    workspace.add_photos(key, [upload(tmp_path / "up", f"{i}.png", png()) for i in range(3)])
    gone, *kept = workspace.draft(key).photos
    workspace.remove_photo(key, gone.thumb.name)
    assert workspace.draft(key).photos == kept
    assert not gone.path.exists()
    assert not gone.thumb.exists()


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([], "no images yet"),
        (["cat"], "only one class"),
        (["cat", ""], "no name yet"),
        (["cat", " cat "], "two classes are called 'cat'"),
        (["cat", "dog", "bird:empty"], "no images yet for bird"),
    ],
)
def test_what_is_missing_before_a_training_is_said(
    names: list[str], match: str, workspace: Workspace, tmp_path: Path
) -> None:
    for i, name in enumerate(names):
        draft = workspace.add_draft(name.partition(":")[0])
        if not name.endswith(":empty"):
            workspace.add_photos(draft.key, [upload(tmp_path / "up", f"{i}.png", png())])
    with pytest.raises(DataError, match=match):
        workspace.labelled()


def test_a_zip_replaces_what_was_there_and_brings_test_images(
    workspace: Workspace, make_zip: Callable[..., Path], tmp_path: Path
) -> None:
    workspace.add_photos(workspace.drafts[0].key, [upload(tmp_path / "up", "old.png", png())])
    old = workspace.drafts[0].photos[0]
    content = {f"set/train/{c}/1.png": png(c) for c in ("red", "blue")}
    content |= {"set/test/red/2.png": png("red"), "set/test/green/3.png": png("green")}
    content |= {"set/train/red/broken.png": b"broken"}
    workspace.read_zip(make_zip(content))
    assert {draft.name: len(draft.photos) for draft in workspace.drafts} == {"blue": 1, "red": 1}
    assert [(photo.source, label) for photo, label in workspace.test] == [("test/red/2.png", "red")]
    assert {each.source for each in workspace.remarks} == {
        "train/red/broken.png",
        "test images of green",
    }
    assert not old.path.exists()
    assert not list(workspace.store.folder.glob("unpacked-*"))


def test_a_useless_zip_changes_nothing(
    workspace: Workspace, make_zip: Callable[..., Path], tmp_path: Path
) -> None:
    workspace.add_photos(workspace.drafts[0].key, [upload(tmp_path / "up", "old.png", png())])
    for content in ({"cat/1.png": b"x", "dog/1.png": b"y"}, {"1.png": png()}):
        with pytest.raises(DataError):
            workspace.read_zip(make_zip(content))
        assert workspace.count() == 1
        assert not list(workspace.store.folder.glob("unpacked-*"))


def test_test_images_of_no_class_are_refused(
    workspace: Workspace, make_zip: Callable[..., Path]
) -> None:
    workspace.read_zip(make_zip({"red/1.png": png("red"), "blue/1.png": png("blue")}))
    with pytest.raises(DataError, match="named as the classes are"):
        workspace.read_test(make_zip({"cat/1.png": png(), "dog/1.png": png()}))
    workspace.read_test(make_zip({"red/1.png": png("red"), "green/1.png": png("green")}))
    assert [label for _, label in workspace.test] == ["red"]


def test_too_many_classes_are_refused(make_zip: Callable[..., Path], tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "mine", Settings(max_classes=3))
    with pytest.raises(DataError, match="4 class folders"):
        workspace.read_zip(make_zip({f"{i}/1.png": png() for i in range(4)}))
    workspace.add_draft()
    with pytest.raises(DataError, match="no more than 3"):
        workspace.add_draft()


def test_deleted_with_everything_in_it(workspace: Workspace, tmp_path: Path) -> None:
    workspace.add_photos(workspace.drafts[0].key, [upload(tmp_path / "up", "a.png", png())])
    workspace.delete()
    assert not workspace.store.folder.exists()


def test_a_refused_model_names_no_folder_of_the_server(
    tmp_path: Path, make_zip: Callable[..., Path]
) -> None:
    workspace = Workspace(tmp_path / "mine", Settings())
    for content in (b"[" * 100_000, b"{}", b"no JSON", b'{"a": ' * 100 + b"1" + b"}" * 100):
        file = make_zip({"model/card.json": content})
        with pytest.raises(FewclipError) as caught:
            training.load(workspace, file)
        assert str(tmp_path) not in str(caught.value)
