"""Bulk prediction from an S3 endpoint on loopback: the rows of local files, also after a stop."""

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


def test_rows_go_to_this_machine_alone(model: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path, "folder")
    with pytest.raises(InputError, match="written on this machine"):
        bulk.predict(model, source, "s3://bucket/rows", progress=False)
