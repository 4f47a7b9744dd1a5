"""Bulk prediction on a real Ray cluster of two nodes: equal rows, also when parts of it die."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bulk_data import write_source
from exports import exported_model
from handwritten_digits import LABELS, write_digits

from fewclip import bulk
from fewclip.bulk import ray_engine, sources
from fewclip.bulk.ray_engine import Actors
from fewclip.bulk.resume import Pending
from fewclip.errors import InputError, MissingExtraError, OptionError

# Ray warns of its own future, and leaves sockets and files to the garbage collector.
pytestmark = [pytest.mark.filterwarnings("ignore")]
IMAGES = 240


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and one more node, of two CPUs each; its sockets need a short path."""
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="fcr", dir="/tmp")
    memory: dict[str, Any] = {"object_store_memory": 150 << 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {"num_cpus": 2, "include_dashboard": False, **memory}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=2, **memory)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
    # Threads of Ray in this process go on logging there.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def actor_processes() -> list[int]:
    """The workers of this cluster that run the model, by the title that Ray gives them."""
    mark = f"RAY_TMPDIR={os.environ['RAY_TMPDIR']}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            title = (process / "cmdline").read_bytes()
            if b"MapWorker" in title and mark in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The same images in the same order, answered alike; another batch rounds otherwise."""
    assert [row["image"] for row in found] == [row["image"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        for key in ("label", "known", "error"):
            assert row[key] == other[key]
        assert row["score"] == pytest.approx(other["score"], abs=1e-5)
        assert [t["label"] for t in row["top"]] == [t["label"] for t in other["top"]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV of many names of a few images, one of which is none; several shards on Ray."""
    photos = write_digits(tmp_path / "photos", 0, 10)
    (photos / "bad.png").write_text("no image")
    files = [*sorted(photos.rglob("*.png")), tmp_path / "missing.png"]
    for number in range(IMAGES // len(LABELS) // 10):
        lines = [str(path) for path in files]
        (tmp_path / f"{number}.csv").write_text("\n".join(["path", *lines]))
    return tmp_path


@pytest.mark.slow
def test_rows_equal_the_local_ones_though_an_actor_and_a_node_die(
    cluster: Any, model: Path, table: Path, tmp_path: Path
) -> None:
    import ray

    lists = sorted(table.glob("*.csv"))
    (tmp_path / "more").mkdir()
    given = [*lists, write_source(tmp_path / "more", "tar")]
    bulk.predict(model, given, tmp_path / "local.jsonl", progress=False)
    local = rows_of(tmp_path / "local.jsonl")
    assert sum(row["error"] is not None for row in local) == 2 * len(lists)

    killed: list[str] = []
    node = next(iter(cluster.worker_nodes))

    def kill() -> None:
        """The first actor that is there, then the node that is not the head."""
        while not killed:
            for pid in actor_processes()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append("actor")
            time.sleep(0.05)
        time.sleep(1.0)
        cluster.remove_node(node)
        killed.append("node")

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    out = tmp_path / "ray.jsonl"
    actors = Actors(count=2, batch_size=8)
    summary = bulk.predict(model, given, out, engine="ray", actors=actors, progress=False)
    thread.join(30)
    cluster.add_node(num_cpus=2, object_store_memory=150 << 20)
    assert killed == ["actor", "node"]
    assert summary.rows == len(local)
    assert_same(rows_of(out), local)

    again = bulk.predict(model, given, out, engine="ray", progress=False)
    assert (again.rows, again.done) == (0, len(local))
    assert ray.is_initialized()  # a cluster of others is left as it was


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_was(
    cluster: Any, model: Path, table: Path, tmp_path: Path
) -> None:
    lists = sorted(table.glob("*.csv"))
    bulk.predict(model, lists, tmp_path / "local", progress=False)
    half = lists[: len(lists) // 2]
    bulk.predict(model, half, tmp_path / "cut", progress=False, part_rows=30)
    for part in sorted((tmp_path / "cut").glob("*.parquet"))[-1:]:
        part.unlink()  # as if it had been killed before this part was there
    bulk.predict(model, lists, tmp_path / "cut", engine="ray", progress=False)
    import pyarrow.parquet as pq

    found, expected = (pq.read_table(tmp_path / name).to_pylist() for name in ("cut", "local"))
    assert_same(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [Actors().cpus, ray_engine.READ_CPUS])
def test_images_are_read_outside_the_actors(
    cluster: Any, cpus: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    shards = [Pending(shard) for shard in sources.shards([write_source(tmp_path, "tar")])]
    pool = Actors(count=2, cpus=cpus).fitted(4, 0)
    ray_engine._dataset(ray, shards, None, 5, pool).explain()
    plan = capsys.readouterr().out.split("Physical Plan (Optimized)")[-1]
    assert "ActorPoolMapOperator[MapBatches(_Predictor)]" in plan
    assert "TaskPoolMapOperator[MapBatches(_read)]" in plan


def test_what_would_starve_the_reads_is_refused() -> None:
    fitted = Actors().fitted(8, 0)
    assert (fitted.count, fitted.cpus, fitted.gpus) == (8, 0.25, 0)
    fitted = Actors().fitted(16, 2)
    assert (fitted.count, fitted.gpus) == (4, 0.5)
    assert Actors().fitted(1, 0).count == 1
    with pytest.raises(OptionError, match="starve"):
        Actors(count=2, cpus=1).fitted(2, 0)
    with pytest.raises(OptionError, match="GPUs"):
        Actors(count=5, gpus=0.5).fitted(32, 2)


def test_a_model_that_was_not_exported_is_refused(model: Path, tmp_path: Path) -> None:
    from fewclip.runtime import OnnxClassifier

    source = write_source(tmp_path, "folder", 1)
    with pytest.raises(InputError, match="path of an exported folder"):
        bulk.predict(OnnxClassifier(model), source, tmp_path / "rows.csv", engine="ray")
    with pytest.raises(OptionError, match="unknown engine 'spark'"):
        bulk.predict(model, source, tmp_path / "rows.csv", engine="spark")


def test_without_the_extra_the_message_installs_it(model: Path, tmp_path: Path) -> None:
    source = write_source(tmp_path, "folder", 1)
    code = f"""
import sys
sys.modules["ray"] = None
from fewclip import bulk
from fewclip.errors import MissingExtraError
try:
    bulk.predict({str(model)!r}, {str(source)!r}, {str(tmp_path / "r.csv")!r}, engine="ray")
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'fewclip[scale]'" in done.stdout
    assert issubclass(MissingExtraError, ImportError)
