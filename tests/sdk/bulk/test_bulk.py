"""Bulk prediction on one machine: every source, every output, and going on after any end."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from bulk_data import FORMS, add, write_source
from exports import exported_model
from handwritten_digits import LABELS, write_digits

from fewclip import bulk
from fewclip.bulk import sources
from fewclip.bulk.resume import Done
from fewclip.cli import main
from fewclip.errors import DataError, InputError, OptionError
from fewclip.runtime import OnnxClassifier
from tests.attacks import hostile_tables

FEWCLIP = [sys.executable, "-m", "fewclip.cli"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers(rows: list[dict[str, Any]]) -> list[Any]:
    return [[row["label"], row["known"], row["top"]] for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_every_source_gives_the_rows_of_the_runtime_in_order(
    form: str, model: Path, tmp_path: Path
) -> None:
    source = write_source(tmp_path, form)
    bulk.predict(model, source, tmp_path / "rows.jsonl", top_k=2, progress=False)
    rows = rows_of(tmp_path / "rows.jsonl")
    photos = tmp_path / "photos"
    images = [str(photos / label / f"{150 + i}.png") for label in LABELS for i in range(4)]
    expected = OnnxClassifier(model).predict(images, top_k=2)
    assert [row["label"] for row in rows] == [p.label for p in expected]
    assert [row["known"] for row in rows] == [p.known for p in expected]
    scores = [[entry["score"] for entry in row["top"]] for row in rows]
    assert scores == [pytest.approx([s.score for s in p.top], abs=1e-5) for p in expected]
    assert all(row["error"] is None for row in rows)
    assert len({row["image"] for row in rows}) == 12


@pytest.mark.parametrize("form", FORMS[1:])
def test_labels_come_with_the_images(form: str, tmp_path: Path) -> None:
    found = sources.shards([write_source(tmp_path, form)])
    labels = [record.label for shard in found for record in shard.records()]
    assert labels == [label for label in LABELS for _ in range(4)]


@pytest.mark.parametrize("form", FORMS)
def test_names_alone_are_the_names(form: str, tmp_path: Path) -> None:
    for shard in sources.shards([write_source(tmp_path, form)]):
        names = [record.name for record in shard.records()]
        assert [record.name for record in shard.records(names_only=True)] == names
        assert shard.count() in (len(names), None)


def test_the_three_outputs_hold_the_same_rows(model: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path, "folder")
    (source / "one" / "9.png").write_text("no image")
    for out in ("rows.csv", "rows.jsonl", "rows"):
        summary = bulk.predict(model, source, tmp_path / out, top_k=2, progress=False, part_rows=5)
        assert (summary.rows, summary.errors, summary.done) == (13, 1, 0)
    plain = rows_of(tmp_path / "rows.jsonl")
    table = pq.read_table(tmp_path / "rows").to_pylist()
    assert table == plain
    with open(tmp_path / "rows.csv", newline="") as file:
        for row, line in zip(plain, csv.DictReader(file), strict=True):
            assert line["image"] == row["image"]
            assert line["error"] == (row["error"] or "")
            if row["error"] is None:
                assert line["known"] == str(row["known"]).lower()
                for k, entry in enumerate(row["top"], 1):
                    assert line[f"top{k}_label"] == entry["label"]
                    assert float(line[f"top{k}_score"]) == entry["score"]
    bad = next(row for row in plain if row["error"])
    assert "9.png" in bad["error"]
    assert bad["label"] is bad["score"] is bad["known"] is None


def test_a_finished_run_does_nothing_and_new_images_are_added(model: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path, "folder")
    for out in (tmp_path / "rows.csv", tmp_path / "rows"):
        bulk.predict(model, source, out, progress=False)
    before = (tmp_path / "rows.csv").read_bytes()
    again = bulk.predict(model, source, tmp_path / "rows.csv", progress=False)
    assert (again.done, again.rows) == (12, 0)
    assert (tmp_path / "rows.csv").read_bytes() == before
    (source / "one" / "1.png").write_bytes((source / "one" / "150.png").read_bytes())
    for out in (tmp_path / "rows.csv", tmp_path / "rows"):
        more = bulk.predict(model, source, out, progress=False)
        assert (more.done, more.rows) == (12, 1)
    after = (tmp_path / "rows.csv").read_bytes()
    assert after.startswith(before)
    assert b"one/1.png" in after[len(before) :]
    assert pq.read_table(tmp_path / "rows").num_rows == 13
    assert not (tmp_path / "rows.csv.parts").exists()
    (tmp_path / "rows" / "part-000000.parquet").unlink()
    again = bulk.predict(model, source, tmp_path / "rows", progress=False)
    assert (again.done, again.rows) == (1, 12)
    assert pq.read_table(tmp_path / "rows").num_rows == 13


def test_rows_of_another_model_or_of_others_are_never_mixed_or_replaced(
    model: Path, tmp_path: Path
) -> None:
    source = write_source(tmp_path, "folder", 1)
    out = tmp_path / "rows.csv"
    bulk.predict(model, source, out, top_k=2, progress=False)
    with pytest.raises(InputError, match="top_k 2 there, 3 now"):
        bulk.predict(model, source, out, top_k=3, progress=False)
    other = OnnxClassifier(model).add_classes(["seven"])
    with pytest.raises(InputError, match="rows of another run"):
        bulk.predict(other, source, out, top_k=2, progress=False)
    bulk.predict(other, source, out, top_k=2, progress=False, overwrite=True)
    own = tmp_path / "own.csv"
    own.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="never overwritten"):
            bulk.predict(model, source, own, progress=False, overwrite=overwrite)
    assert own.read_text() == "mine"


def test_a_broken_shard_is_a_row_and_the_images_before_it_are_answered(
    model: Path, tmp_path: Path
) -> None:
    whole = write_source(tmp_path, "tar")
    with tarfile.open(whole) as tar:
        sixth = tar.getmember("000005.png")
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: sixth.offset_data + 30])
    out = tmp_path / "rows.jsonl"
    bulk.predict(model, [cut, whole], out, progress=False)
    rows = rows_of(out)
    assert [row["error"] is None for row in rows[:5]] == [True] * 5
    assert rows[5]["image"] == f"{cut}/000005.png"
    assert "cut off" in rows[5]["error"]
    assert rows[6]["image"] == str(cut)
    assert "truncated" in rows[6]["error"]
    assert all(row["error"] is None for row in rows[-12:])
    assert bulk.predict(model, [cut, whole], out, progress=False).rows == 0


def test_arrow_is_checked_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "hostile.arrow"
    file.write_bytes(hostile_tables.arrow_with_a_length_below_zero())
    (shard,) = sources.shards([file])
    with pytest.raises(DataError, match="cannot be read"):
        list(shard.records())


def test_a_webdataset_sample_takes_its_name_from_the_first_dot(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "dir.v1/0001.txt", b"cat")
        add(tar, "dir.v1/0001.JPG", b"x")
        add(tar, "dir.v1/0002.json", json.dumps({"label": "dog", "n": 1}).encode())
        add(tar, "dir.v1/0002.seg.png", b"no image of the sample")
        add(tar, "dir.v1/0002.webp", b"y")
        add(tar, "dir.v1/.hidden.png", b"z")
        link = tarfile.TarInfo("dir.v1/0003.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    (shard,) = sources.shards([path])
    found = [(record.name, record.label, record.load()) for record in shard.records()]
    assert found == [
        (f"{path}/dir.v1/0001.JPG", "cat", b"x"),
        (f"{path}/dir.v1/0002.webp", "dog", b"y"),
    ]


def test_no_url_is_taken_from_inside_a_file(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("image_path\nhttp://127.0.0.1:9/a.png\nfile:///etc/hostname\n\n")
    out = tmp_path / "rows.jsonl"
    bulk.predict(model, table, out, progress=False)
    assert ["is a URL" in row["error"] for row in rows_of(out)] == [True, True]


def test_a_file_system_behind_a_url(model: Path, tmp_path: Path) -> None:
    import fsspec

    photos = write_source(tmp_path, "folder", 2)
    tar = write_source(tmp_path, "tar", 2)
    fs = fsspec.filesystem("memory")
    fs.put(str(photos), "/bulk/photos", recursive=True)
    for n in range(2):
        fs.put(str(tar), f"/bulk/shards/{n}.tar")
    fs.pipe("/bulk/list.csv", b"path\nphotos/one/150.png\n../up.png\nmemory://bulk/x.png\n")
    urls = ["memory://bulk/photos", "memory://bulk/shards/*.tar", "memory://bulk/list.csv"]
    out = tmp_path / "rows.jsonl"
    summary = bulk.predict(model, [*urls, "memory://bulk/shards/{0..1}.tar"], out, progress=False)
    assert (summary.rows, summary.errors) == (6 + 12 + 3 + 12, 2)
    rows = rows_of(out)
    assert rows[0]["image"] == "memory:///bulk/photos/four/150.png"
    assert answers(rows[6:12]) == answers(rows[12:18])
    with pytest.raises(DataError, match="memory://bulk/nothing is not there"):
        sources.check(["memory://bulk/nothing"])
    with pytest.raises(DataError, match="nothing://x"):
        sources.check(["nothing://x"])


def test_a_web_server_gives_files_and_no_links(model: Path, tmp_path: Path) -> None:
    import functools
    import http.server
    import threading

    photos = write_source(tmp_path, "folder", 1)
    write_source(tmp_path, "tar", 1)
    (tmp_path / "list.csv").write_text("path\nphotos/one/150.png\nhttp://127.0.0.1:9/x.png\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}"
        urls = [f"{home}/photos/one/150.png", f"{home}/all-tar.tar", f"{home}/list.csv"]
        urls += [f"{home}/missing.png", f"{home}/photos/"]
        bulk.predict(model, urls, tmp_path / "rows.jsonl", progress=False)
        server.shutdown()
    rows = rows_of(tmp_path / "rows.jsonl")
    good = [row["image"] for row in rows if row["error"] is None]
    assert good == [urls[0], *[f"{urls[1]}/{n:06d}.png" for n in range(3)], urls[0]]
    assert ["is a URL" in (row["error"] or "") for row in rows].count(True) == 1
    assert len(rows) == 8
    assert photos.is_dir()


def test_what_holds_no_images_is_said_before_the_work(model: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"number": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match=r"has no column of images.*it has number"):
        bulk.predict(model, tmp_path / "numbers.parquet", tmp_path / "rows.csv")
    with pytest.raises(OptionError, match="no column 'photo'"):
        sources.check([tmp_path / "numbers.parquet"], column="photo")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        bulk.predict(model, tmp_path / "empty", tmp_path / "rows.csv")
    with pytest.raises(InputError, match=r"not to \.xlsx"):
        bulk.predict(model, write_source(tmp_path, "folder", 1), tmp_path / "rows.xlsx")
    assert not (tmp_path / "rows.csv").exists()


def test_done_images_are_met_in_order_or_by_name() -> None:
    done = Done(iter(["a", "b", "c", "c"]))
    assert done.holds("a")
    assert not done.holds("new")
    assert [done.holds(name) for name in ("c", "c", "c", "b")] == [True, True, False, True]
    assert done.used_up


def test_the_command_writes_rows_and_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    source = write_source(tmp_path, "folder")
    words = ["predict", str(model), str(source), "--out", str(tmp_path / "rows.csv")]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "12 rows" in out
    assert "12 of 12 images" in err
    assert "images/s" in err
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 12
    assert main(["predict", str(model), str(source), "--overwrite"]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_each_image_once(model: Path, tmp_path: Path) -> None:
    """kill -9 and Ctrl-C in turn, files and folder alike: the end equals an unbroken run."""
    photos = write_digits(tmp_path / "photos", 0, 40)
    table = tmp_path / "list.csv"
    names = [path.relative_to(tmp_path) for path in sorted(photos.rglob("*.png"))]
    lines = [f"{path.parent}/./{n}/../{path.name}" for n in range(4) for path in names]
    for n in range(4):
        for label in LABELS:
            (photos / label / str(n)).mkdir()
    table.write_text("\n".join(["image_path", *lines]))
    code = (
        "import sys; from fewclip import bulk\n"
        "bulk.predict(sys.argv[1], sys.argv[2], sys.argv[3], progress=False, part_rows=25)"
    )

    def words(out: str) -> list[str]:
        return [sys.executable, "-c", code, str(model), str(table), str(tmp_path / out)]

    begin = time.monotonic()
    subprocess.run(words("whole.csv"), check=True)
    whole = time.monotonic() - begin
    rng = random.Random()
    for out in ("cut.csv", "cut"):
        kills = 0
        for attempt in range(6):
            process = subprocess.Popen(words(out), stderr=subprocess.DEVNULL)
            try:
                process.wait(rng.uniform(0.4, 1.0) * whole)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL if attempt % 2 else signal.SIGINT)
                process.wait()
                kills += 1
            if kills == 2:
                break
        assert kills
        subprocess.run(words(out), check=True)
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    images = pq.read_table(tmp_path / "cut").column("image").to_pylist()
    assert len(images) == len(lines) == len(set(images))
    assert images == [str(tmp_path / line) for line in lines]
    assert not list(tmp_path.glob("**/*.tmp"))
