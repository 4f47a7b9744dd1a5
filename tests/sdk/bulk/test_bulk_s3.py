"""Bulk prediction from and to an S3 endpoint on loopback: the rows of local files, also after a
stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from bulk_data import write_source
from exports import exported_model
from moto.server import ThreadedMotoServer

from fewclip import bulk
from fewclip.bulk.row import Row
from fewclip.bulk.sinks import open_output
from fewclip.errors import DataError, InputError

# The server's and the client's libraries leave sockets to the garbage collector.
pytestmark = [pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """The file system of the endpoint, with an empty bucket `photos`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        files = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
        files.mkdir("bucket")
        yield files
    server.stop()


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(folder).to_pylist())


@pytest.mark.parametrize(
    ("form", "url"),
    [
        ("folder", "s3://bucket/folder"),
        ("folder", "s3://bucket/folder/*/*.png"),
        ("tar", "s3://bucket/tar/*.tar"),
        ("parquet-bytes", "s3://bucket/parquet-bytes/all-parquet-bytes.parquet"),
        ("csv", "s3://bucket/csv/all-csv.csv"),
    ],
)
def test_rows_are_those_of_the_local_files_also_after_a_stop(
    form: str, url: str, s3: Any, model: Path, tmp_path: Path
) -> None:
    source = write_source(tmp_path, form)
    local, out = tmp_path / "local", tmp_path / "rows"
    bulk.predict(model, source, local, progress=False)
    if form == "folder":
        s3.put(f"{source}/", f"bucket/{form}/", recursive=True)
    else:
        s3.put(str(source), f"bucket/{form}/{source.name}")
        s3.put(f"{tmp_path / 'photos'}/", f"bucket/{form}/photos/", recursive=True)

    bulk.predict(model, url, out, progress=False, part_rows=5)
    *_, last = sorted(out.glob("*.parquet"))
    last.unlink()  # as if it had been killed before this part was there
    again = bulk.predict(model, url, out, progress=False)
    assert (again.done, again.rows, again.errors) == (10, 2, 0)
    found, expected = rows_of(out), rows_of(local)
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [row["score"] for row in found] == [
        pytest.approx(row["score"], abs=1e-5) for row in expected
    ]
    assert len({row["image"] for row in found}) == 12
    assert all(row["image"].startswith("s3://bucket/") for row in found)


def test_what_is_not_there_is_said(s3: Any, model: Path, tmp_path: Path) -> None:
    for url in ("s3://bucket/nothing", "s3://no-such-bucket/photos"):
        with pytest.raises(DataError, match="s3://"):
            bulk.predict(model, url, tmp_path / "rows", progress=False)


def urls_of(rows: list[dict[str, Any]]) -> list[str]:
    return [row["image"] for row in rows]


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_rows_go_to_object_storage_part_by_part_and_go_on_there(
    engine: str, s3: Any, model: Path, tmp_path: Path
) -> None:
    source = write_source(tmp_path, "folder")
    url = f"s3://bucket/rows-{engine}"
    bulk.predict(model, source, tmp_path / "local", progress=False)
    expected = rows_of(tmp_path / "local")

    first = bulk.predict(model, source, url, engine=engine, progress=False, part_rows=5)
    assert (first.done, first.rows, first.out) == (0, 12, url)
    root = url.removeprefix("s3://")
    parts = [f"{root}/part-{number:06d}.parquet" for number in range(3)]
    assert sorted(s3.ls(root)) == sorted([f"{root}/_fewclip_run.json", *parts])
    s3.rm_file(parts[1])  # as if somebody had taken it out
    again = bulk.predict(model, source, url, progress=False)
    assert (again.done, again.rows) == (7, 5)
    assert f"{root}/part-000003.parquet" in s3.ls(root)
    found = pq.read_table(root, filesystem=s3).to_pylist()
    assert sorted(urls_of(found)) == sorted(urls_of(expected))
    assert bulk.predict(model, source, url, progress=False).rows == 0


def test_a_second_run_on_one_folder_stops_before_a_row_is_there_twice(
    s3: Any, model: Path, tmp_path: Path
) -> None:
    rows = [Row(f"{number}.png", error="none") for number in range(4)]
    url, run = "s3://bucket/two", {"model": "m"}
    with open_output(url, run, 1) as one:
        other = open_output(url, run, 1, part_rows=3)
        one.add(rows[0])
        one._flush()
        other.add(rows[0])
        other.add(rows[1])
        with pytest.raises(InputError, match="another process"):
            other.add(rows[2])
        one.add(rows[1])
    with open_output(url, run, 1) as after:
        assert list(after.images()) == ["0.png", "1.png"]
    with pytest.raises(InputError, match="model m there, n now"):
        open_output(url, {"model": "n"}, 1)
    with open_output(url, {"model": "n"}, 1, overwrite=True) as anew:
        assert list(anew.images()) == []


def test_where_rows_do_not_go(s3: Any, model: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path, "folder", 1)
    s3.pipe_file("bucket/own/notes.txt", b"mine")
    for url, reason in (
        ("https://host/rows", "written on this machine, or in object storage"),
        ("s3://bucket/rows.csv", "folder of Parquet parts"),
        ("s3://bucket/own", "was not written by"),
        ("s3://no-such-bucket/rows", "cannot be written"),
    ):
        with pytest.raises(InputError, match=reason):
            bulk.predict(model, source, url, progress=False)
    assert s3.ls("bucket/own") == ["bucket/own/notes.txt"]
