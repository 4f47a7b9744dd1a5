"""Labels from Parquet, Arrow and WebDataset, and as Label Studio and CVAT export them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from bulk_data import write_source
from exports import exported_model
from handwritten_digits import LABELS, write_digits

from fewclip.data import read, read_labelled, scan
from fewclip.errors import DataError
from fewclip.runtime import OnnxClassifier


@pytest.mark.parametrize(
    "form", ["csv", "parquet-paths", "parquet-bytes", "arrow", "datasets", "tar", "tgz"]
)
def test_every_form_holds_the_pictures_of_the_folder(form: str, tmp_path: Path) -> None:
    expected = read(write_source(tmp_path, "folder"))
    pool = read(write_source(tmp_path, form))
    assert pool.classes == expected.classes == LABELS
    assert {(item.content, item.label) for item in pool.train} == {
        (item.content, item.label) for item in expected.train
    }


def test_evaluate_takes_the_same_sources(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clf = OnnxClassifier(exported_model(tmp_path_factory))
    expected = clf.evaluate(write_source(tmp_path, "folder"))
    for form in ("parquet-bytes", "datasets", "tar", "folder", "csv"):
        source: Path | str = write_source(tmp_path, form)
        if form in ("folder", "csv"):  # what is read here without a URL is read behind one
            source = f"file://{source}"
        report = clf.evaluate(source)
        assert (report.n, report.accuracy) == (expected.n, expected.accuracy)


def test_categories_of_pandas_are_paths_and_labels(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    plain = write_source(tmp_path, "parquet-paths")
    expected = scan(plain).splits["train"]
    table = pq.read_table(plain)
    for at, name in enumerate(table.column_names):
        table = table.set_column(at, name, table.column(name).dictionary_encode())
    pq.write_table(table, plain)
    assert scan(plain).splits["train"] == expected


def test_a_folder_behind_a_url_may_be_divided(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_digits(tmp_path / "photos" / split, 150, 2)
    found = scan(f"file://{tmp_path}/photos/")
    assert found.divided
    assert {split: len(images) for split, images in found.splits.items()} == {"train": 6, "test": 6}
    assert found.labels == set(LABELS)


@pytest.mark.parametrize("layout", ["folders", "names"])
def test_splits_are_those_of_folders_or_file_names(layout: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    shards = tmp_path / "shards"
    for split in ("train", "test"):
        name = f"{split}/0.tar" if layout == "folders" else f"{split}-00000-of-00001.tar"
        (shards / name).parent.mkdir(parents=True, exist_ok=True)
        count = 4 if split == "train" else 2
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "a").mkdir()
        shutil.move(write_source(tmp_path / "a", "tar", count), shards / name)
    found = scan(shards)
    assert found.divided
    assert {split: len(images) for split, images in found.splits.items()} == {
        "train": 12,
        "test": 6,
    }
    items, _ = read_labelled(shards, LABELS)
    assert len(items) == 6

    import fsspec

    fsspec.filesystem("memory").put(str(shards), f"/{layout}", recursive=True)
    pool = read(f"memory://{layout}")
    assert (len(pool.train), len(pool.test or ())) == (6, 6)  # the test pictures are in train too


def test_images_without_a_label_are_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    photos = write_digits(tmp_path / "photos", 0, 1)
    names = [str(path.relative_to(tmp_path)) for path in sorted(photos.rglob("*.png"))]
    pq.write_table(pa.table({"path": names}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"needs a column `label` or `class`.*no label"):
        scan(tmp_path / "x.parquet")


def test_a_label_studio_export_is_read_as_it_is(tmp_path: Path) -> None:
    photos = write_digits(tmp_path / "sets", 0, 2)
    shutil.copy(photos / "one" / "0.png", tmp_path / "1a2b3c4d-my_one.png")
    shutil.copy(photos / "zero" / "0.png", tmp_path / "my zero.png")
    lines = [
        "annotation_id,annotator,choice,created_at,id,image",
        "1,1,one,2026-01-01,1,/data/upload/3/1a2b3c4d-my_one.png",
        "2,1,zero,2026-01-01,2,/data/upload/3/ffffffff-my%20zero.png",
        "3,1,one,2026-01-01,3,/data/local-files/?d=somewhere/sets/one/1.png",
        '4,1,"{""choices"": [""one"", ""zero""]}",2026-01-01,4,sets/zero/1.png',
        '5,1,"{""choices"": [""zero""]}",2026-01-01,5,sets/zero/1.png',
    ]
    (tmp_path / "project.csv").write_text("\n".join(lines))
    pool = read(tmp_path / "project.csv")
    assert pool.classes == ("one", "zero")
    assert sorted(item.label for item in pool.train) == [0, 0, 1, 1]
    assert [each.reason for each in pool.skipped] == [
        'not one label but {"choices": ["one", "zero"]}'
    ]


def test_a_cvat_export_in_open_images_format_is_read_as_it_is(tmp_path: Path) -> None:
    photos = write_digits(tmp_path / "images" / "train", 0, 2)
    (tmp_path / "annotations").mkdir()
    table = tmp_path / "annotations" / "train-annotations-human-imagelabels.csv"
    lines = ["ImageID,Source,LabelName,Confidence"]
    for number, label in enumerate(LABELS):
        lines += [f"{label}/{i},manual,/m/{number},1" for i in range(2)]
        lines.append(f"{label}/0,manual,/m/{(number + 1) % 3},0")
    table.write_text("\n".join(lines))
    names = [f"/m/{number},{label}" for number, label in enumerate(LABELS)]
    (table.parent / "class-descriptions.csv").write_text(
        "\n".join(["LabelName,DisplayName", *names])
    )
    pool = read(table)
    assert pool.classes == LABELS
    assert len(pool.train) == 6
    assert not pool.skipped
    assert json.dumps([str(item.image) for item in pool.train]).count(str(photos)) == 6
