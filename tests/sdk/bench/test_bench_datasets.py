"""The data sets of the bench: fifteen layouts, own folders, samples, what a missing file says."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import bench_data
import pytest

from fewclip.bench import published
from fewclip.bench.datasets import load
from fewclip.bench.layouts import DESCRIBED, ELEVEN, LAYOUTS, VARIANTS
from fewclip.errors import DataError

SPLIT = [name for name, layout in LAYOUTS.items() if layout.kind == "split"]
FIVE = ["zebra", "ant_lion", "moth", "bee", "fly"]


def test_the_table_holds_the_fifteen() -> None:
    assert len(LAYOUTS) == 15
    assert len(ELEVEN) == 11
    assert set(ELEVEN) | set(VARIANTS) == set(LAYOUTS)
    assert len({layout.folder for layout in LAYOUTS.values()}) == 15
    assert [name for name, layout in LAYOUTS.items() if layout.quarter] == [
        "imagenet",
        "food101",
        "sun397",
    ]


@pytest.mark.parametrize("name", SPLIT)
def test_a_split_file_gives_classes_in_the_order_of_their_ids(tmp_path: Path, name: str) -> None:
    folder = bench_data.write_split(tmp_path, name, FIVE, train=3, test=2)
    data = load(name, root=tmp_path)
    assert list(data.classes) == FIVE[::-1]
    assert data.classes["ant_lion"] == "ant lion"
    assert [len(data.half(which)) for which in ("all", "base", "new")] == [5, 3, 2]
    assert list(data.phrases("base")) == ["fly", "bee", "moth"]
    assert list(data.phrases("new")) == ["ant_lion", "zebra"]
    assert len(data.sample("all", 1)) == 15
    assert len(data.tested()) == 10
    for photo in data.tested("new"):
        assert Path(str(photo.image)).parent.name == ["ant_lion", "zebra"][photo.label]
    assert load(folder).fingerprint == data.fingerprint  # the folder itself is recognised


def test_a_fingerprint_is_the_same_elsewhere_and_only_for_the_same_data(tmp_path: Path) -> None:
    folder = bench_data.write_split(tmp_path / "a", "dtd", FIVE, train=2, test=1)
    first = load("dtd", root=tmp_path / "a").fingerprint
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert load("dtd", root=tmp_path / "b").fingerprint == first
    file = folder / LAYOUTS["dtd"].split
    split = json.loads(file.read_text())
    split["test"].append(split["train"].pop())
    file.write_text(json.dumps(split))
    assert load("dtd", root=tmp_path / "a").fingerprint != first


def test_eurosat_s_folder_names_become_the_published_names(tmp_path: Path) -> None:
    bench_data.write_split(tmp_path, "eurosat", ["SeaLake", "River", "Highway or Road"], 1, 1)
    assert list(load("eurosat", root=tmp_path).classes.values()) == [
        "Highway or Road",
        "River",
        "Sea or Lake",
    ]


def test_two_classes_of_one_name_stay_two(tmp_path: Path) -> None:
    folder = bench_data.write_split(tmp_path, "sun397", ["crane", "barn"], train=1, test=1)
    file = folder / LAYOUTS["sun397"].split
    split = json.loads(file.read_text())
    for part in ("train", "test"):
        split[part] += [[path, 7, "crane"] for path, _, said in split[part] if said == "barn"]
    file.write_text(json.dumps(split))
    data = load("sun397", root=tmp_path)
    assert list(data.classes.items()) == [
        ("barn", "barn"),
        ("crane (1)", "crane"),
        ("crane (7)", "crane"),
    ]


def test_aircraft_reads_its_own_lists(tmp_path: Path) -> None:
    bench_data.write_aircraft(tmp_path, ["A300B4", "707-320", "Boeing 717"], train=2, test=1)
    data = load("fgvc_aircraft", root=tmp_path)
    assert list(data.classes) == ["A300B4", "707-320", "Boeing 717"]  # the order of variants.txt
    assert [p.label for p in data.sample("all", 1)] == [0, 0, 1, 1, 2, 2]
    assert [p.key for p in data.tested()] == [f"00{i}0002.jpg" for i in range(3)]


def test_imagenet_and_its_variants_speak_of_the_same_classes(tmp_path: Path) -> None:
    bench_data.write_imagenet(tmp_path)
    bench_data.write_variants(tmp_path)
    source = load("imagenet", root=tmp_path)
    assert source.classes == {
        "n01": "great white shark",
        "n02": "goldfish",
        "n03": "tabby cat",
        "n04": "goldfish",
    }
    assert (len(source.train), len(source.test)) == (16, 8)
    for name, wnids in (
        ("imagenetv2", ["n01", "n02", "n03", "n04"]),
        ("imagenet_sketch", ["n01", "n02", "n03", "n04"]),
        ("imagenet_a", ["n01", "n03"]),
        ("imagenet_r", ["n02", "n03", "n04"]),
    ):
        data = load(name, root=tmp_path)
        assert list(data.classes) == wnids
        assert [photo.label for photo in data.tested()] == list(range(len(wnids)))
        assert data.half("base") == list(range((len(wnids) + 1) // 2))
        with pytest.raises(DataError, match="no training images"):
            data.sample(1, 1)


def test_imagenet_needs_the_same_classes_in_train_and_val(tmp_path: Path) -> None:
    folder = bench_data.write_imagenet(tmp_path)
    shutil.rmtree(folder / "images" / "val" / "n02")
    with pytest.raises(DataError, match="n02"):
        load("imagenet", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("dtd", "split_zhou_DescribableTextures.json"),
        ("dtd", "images/moth/image_1.png"),
        ("fgvc_aircraft", "variants.txt"),
        ("fgvc_aircraft", "images_variant_test.txt"),
        ("imagenet", "classnames.txt"),
        ("imagenet", "images/val"),
        ("imagenetv2", "imagenetv2-matched-frequency-format-val/2"),
        ("imagenet_r", "imagenet-r"),
    ],
)
def test_a_missing_file_is_named_with_its_place_and_description(
    tmp_path: Path, name: str, lost: str
) -> None:
    bench_data.write_split(tmp_path, "dtd", FIVE, train=2, test=1)
    bench_data.write_aircraft(tmp_path, ["A300B4", "707-320"], train=1, test=1)
    bench_data.write_imagenet(tmp_path)
    bench_data.write_variants(tmp_path)
    load(name, root=tmp_path)
    place = tmp_path / LAYOUTS[name].folder / lost
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    with pytest.raises(DataError) as caught:
        load(name, root=tmp_path)
    assert str(place) in str(caught.value)
    assert place.name in str(caught.value).split(",")[0]
    assert f"{DESCRIBED}#{LAYOUTS[name].title.lower()}" in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"train": []}', '{"train": [[1]], "test": []}'])
def test_a_broken_split_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    folder = bench_data.write_split(tmp_path, "dtd", FIVE, train=1, test=1)
    (folder / LAYOUTS["dtd"].split).write_text(content)
    with pytest.raises(DataError, match="split_zhou_DescribableTextures"):
        load("dtd", root=tmp_path)


def test_a_name_without_a_root_and_a_path_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--root"):
        load("caltech101")
    with pytest.raises(DataError, match="caltech101, oxford_pets"):
        load(tmp_path / "nothing")


def test_an_own_folder_with_its_own_test_images(tmp_path: Path) -> None:
    folder = bench_data.write_folder(tmp_path / "own", FIVE, train=3, test=2)
    data = load(folder)
    assert (data.name, list(data.classes)) == ("own", sorted(FIVE))
    assert (len(data.train), len(data.test), data.notes) == (15, 10, ())


def test_an_own_folder_without_test_images_holds_some_out(tmp_path: Path) -> None:
    folder = bench_data.write_folder(tmp_path / "own", ["a", "b"], train=5, test=0)
    data = load(folder)
    assert [sum(p.label == i for p in data.test) for i in (0, 1)] == [2, 2]
    assert not {p.key for p in data.train} & {p.key for p in data.test}
    assert load(folder).fingerprint == data.fingerprint
    assert "held out" in data.notes[0]


def test_an_archive_is_read_like_its_folder(tmp_path: Path) -> None:
    folder = bench_data.write_folder(tmp_path / "pack", ["a", "b"], train=2, test=1)
    with tarfile.open(tmp_path / "pack.tar", "w") as tar:
        tar.add(folder, "pack")
    data = load(tmp_path / "pack.tar")
    assert data.name == "pack"
    assert data.fingerprint == load(folder).fingerprint
    (tmp_path / "broken.tar").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"broken\.tar cannot be unpacked"):
        load(tmp_path / "broken.tar")


def test_a_sample_depends_on_its_class_and_the_seed_alone(tmp_path: Path) -> None:
    bench_data.write_split(tmp_path / "a", "dtd", FIVE, train=8, test=1)
    bench_data.write_split(tmp_path / "b", "dtd", FIVE[:4], train=8, test=1)
    five, four = (load("dtd", root=tmp_path / each) for each in "ab")

    def keys(data: object, shots: int, seed: int, label: str) -> list[str]:
        chosen = data.sample(shots, seed)  # type: ignore[attr-defined]
        index = list(data.classes).index(label)  # type: ignore[attr-defined]
        return [photo.key for photo in chosen if photo.label == index]

    assert len(five.sample(3, 1)) == 15
    assert keys(five, 3, 1, "bee") == keys(four, 3, 1, "bee")
    assert keys(five, 3, 1, "bee") == keys(five, 5, 1, "bee")[:3]
    assert keys(five, 3, 1, "bee") != keys(five, 3, 2, "bee")
    assert len(keys(five, 99, 1, "bee")) == 8


def test_templates_differ_by_method_as_published() -> None:
    assert published.template("zero-shot", "dtd") == "{} texture."
    assert published.template("clip-adapter+dept", "dtd") == "{} texture."
    assert published.template("kgcoop+dept", "dtd") == "a photo of a {}, a type of texture."
    assert published.template("skip-tuning", "dtd") == "itap of a {}."
    assert published.template("fine-tune", "imagenet_a") == "a bad photo of a {}."
    assert published.template("kgcoop", "imagenet_a") == "a photo of a {}."
    assert published.template("skip-tuning", "my photos") == "a photo of a {}."
    for templates in published.TEMPLATES.values():
        assert set(templates) <= set(LAYOUTS)
        assert all(template.count("{}") == 1 for template in templates.values())


def test_promptsrcs_few_shot_runs_average_late_on_five_data_sets() -> None:
    late = [published.settings("few-shot", "promptsrc", name) for name in ("dtd", "eurosat")]
    assert [(row["average_mean"], row["average_std"]) for row in late] == [(45.0, 5.0)] * 2
    other = published.settings("few-shot", "promptsrc+dept", "food101")
    assert (other["average_mean"], other["average_std"], other["epochs"]) == (30.0, 30.0, 50)


def test_kgcoop_with_dept_has_its_own_rate_across_data_sets() -> None:
    found = published.settings("cross-dataset", "kgcoop+dept")
    assert found == {"dept_weight": 0.5, "dept_lr": 0.016}
