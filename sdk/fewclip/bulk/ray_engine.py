"""The engine beyond one machine: Ray Data reads, a pool of actors runs the model. No files here.

Tasks read records as bytes, actors decode and answer them, and the rows come back to the caller in
the order of the source, so one process writes them and an interrupted run resumes like a local one.
The work of a lost actor or node is repeated.

Actors that take every CPU leave none for the reading tasks, and Ray then waits forever, silently.
Their share is therefore small enough that reads still run when half of the nodes are gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pickle
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewclip import artifact
from fewclip.bulk import local
from fewclip.bulk.records import Record
from fewclip.bulk.resume import Pending
from fewclip.bulk.row import Row
from fewclip.contract import Card
from fewclip.errors import DataError, InputError, OptionError
from fewclip.hub import local_folder
from fewclip.images import load_image
from fewclip.system.extras import require

if TYPE_CHECKING:
    import pyarrow as pa

READ_CPUS = 0.2  # of a reading task, which mostly waits
_BLOCKS = 2000  # the list of shards is cut into at most this many


@dataclasses.dataclass(frozen=True, kw_only=True)
class Actors:
    """The pool that runs the model.

    Attributes:
        count: None for one per CPU of the cluster, or two per GPU.
        cpus: CPUs that each declares to Ray; together at most half of the cluster.
        gpus: GPUs of each; None for half a GPU if the cluster has any, else 0.
        threads: threads that each really uses, for inference and for decoding.
        batch_size: images per forward pass.
    """

    count: int | None = None
    cpus: float = 0.25
    gpus: float | None = None
    threads: int = 1
    batch_size: int = local.BATCH

    def fitted(self, cpus: float, gpus: float) -> Actors:
        """With every number filled in for a cluster of this size.

        Raises:
            OptionError: they would leave no CPU for reading, or need more GPUs than there are.
        """
        each = self.gpus if self.gpus is not None else (0.5 if gpus else 0.0)
        count = self.count or max(1, int(gpus / each if each else cpus))
        if count * self.cpus > max(cpus / 2, self.cpus) or self.cpus + READ_CPUS > cpus:
            raise OptionError(
                f"{count} actors of {self.cpus:g} CPUs take more than half of the cluster's "
                f"{cpus:g}, and reading would starve; use fewer actors or a smaller share"
            )
        if count * each > gpus:
            raise OptionError(
                f"{count} actors of {each:g} GPUs need more than the cluster's {gpus:g}"
            )
        return dataclasses.replace(self, count=count, gpus=each)


def exported(model: object) -> tuple[Path, Card]:
    """The exported folder and its card: what can be sent to every node.

    Raises:
        InputError: it is not an exported folder.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise InputError(
            f"engine 'ray' got a {type(model).__name__}; give the path of an exported folder, "
            "whose files are sent to every actor"
        )
    folder = local_folder(model)
    card = artifact.read_card(folder)
    if card.kind != "onnx":
        raise InputError(
            f"{model} is a saved model, and engine 'ray' takes exported ones; run "
            f"`fewclip export {model} --out {model}-onnx` first"
        )
    return folder, card


def rows(
    model: str | os.PathLike[str],
    left: Iterable[Pending],
    *,
    top_k: int = 5,
    address: str | None = None,
    actors: Actors | None = None,
) -> Generator[Row]:
    """One row per record, in order.

    Args:
        model: an exported folder on this machine.
        left: what is left to do; its files must be at the same paths, or URLs, on every node.
        address: of a cluster ("auto", "host:6379", "ray://host:10001"); None starts Ray here.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: the cluster cannot be reached.
    """
    shards = list(left)
    if not shards:
        return
    ray = require("ray.data", "engine 'ray'", "scale") and require("ray", "engine 'ray'", "scale")
    with connected(ray, address), _ordered(ray):
        found = ray.cluster_resources()
        pool = (actors or Actors()).fitted(found.get("CPU", 0.0), found.get("GPU", 0.0))
        files = ray.put({p.name: p.read_bytes() for p in Path(model).iterdir() if p.is_file()})
        answers = _dataset(ray, shards, files, top_k, pool)
        for table in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
            for text in table.column("row").to_pylist():
                yield Row.from_dict(json.loads(text))


def _dataset(ray: Any, shards: Sequence[Pending], files: Any, top_k: int, pool: Actors) -> Any:
    packed = [{"pending": pickle.dumps(each)} for each in shards]
    listed = ray.data.from_items(packed, override_num_blocks=min(len(packed), _BLOCKS))
    # Ray runs tasks with exactly the actors' share inside the actors, where remote images would be
    # fetched one by one while the model waits.
    share = READ_CPUS if pool.cpus != READ_CPUS else READ_CPUS / 2
    images = listed.map_batches(_read, batch_size=1, batch_format="pyarrow", num_cpus=share)
    # Lost tasks and actors are repeated without limit; that is Ray Data's default.
    return images.map_batches(
        _Predictor,
        fn_constructor_args=(files, top_k, pool.threads),
        batch_size=pool.batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=pool.count),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
    )


@contextlib.contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster; one started here is shut down at the end, an existing one is not."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry unless it is asked for
    try:
        if address is None:
            # Ray's default, 15, yields to whatever else runs here; the local engine does not.
            os.environ.setdefault("RAY_worker_niceness", "0")
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster answers at {address or 'this machine'} ({error}); start one with "
            "`ray start --head`, or leave --ray-address out"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _ordered(ray: Any) -> Iterator[None]:
    """Blocks come out in the order in which they went in, and only errors are logged."""
    context = ray.data.DataContext.get_current()
    options = context.execution_options
    before = options.preserve_order, context.enable_progress_bars
    options.preserve_order, context.enable_progress_bars = True, False
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        options.preserve_order, context.enable_progress_bars = before


# ---- on the nodes ----------------------------------------------------------------------------


def _read(batch: pa.Table) -> Iterator[pa.Table]:
    """Records of a shard as tables of name, data and error, a few at a time."""
    for each in batch.column("pending").to_pylist():
        waiting: list[dict[str, Any]] = []
        # Pickled by `_dataset` in this very run, and by nobody else.
        for record in pickle.loads(each).records():
            waiting.append(_fetched(record))
            if len(waiting) == local.BATCH:
                yield _table(waiting)
                waiting = []
        if waiting:
            yield _table(waiting)


def _table(images: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    columns = [("name", pa.string()), ("data", pa.large_binary()), ("error", pa.string())]
    return pa.Table.from_pylist(images, pa.schema(columns))


def _fetched(record: Record) -> dict[str, Any]:
    """The encoded image, or the same error message that the local engine would give."""
    try:
        image = record.load()
        if isinstance(image, (str, os.PathLike)):
            image = _content(image, record.name)
        return {"name": record.name, "data": image, "error": None}
    except (DataError, OSError) as error:
        return {"name": record.name, "data": None, "error": " ".join(str(error).split())}


def _content(path: str | os.PathLike[str], name: str) -> bytes:
    if os.path.isfile(path):  # opening a pipe or a device may never return
        with contextlib.suppress(OSError):
            return Path(path).read_bytes()
    load_image(path, name=name)  # raises the error that says what is wrong
    return Path(path).read_bytes()


class _Predictor:
    """An actor: the model, opened once from the files sent to it."""

    def __init__(self, files: Any, top_k: int, threads: int) -> None:
        import ray

        from fewclip.runtime import OnnxClassifier

        with tempfile.TemporaryDirectory(prefix="fewclip-") as folder:
            for name, content in ray.get(files).items():
                (Path(folder) / name).write_bytes(content)
            self._model = OnnxClassifier(folder, threads=threads, workers=threads)
        self._top_k = top_k
        self._pool = ThreadPoolExecutor(threads, "decode")

    def __call__(self, images: pa.Table) -> pa.Table:
        import pyarrow as pa

        decoded = list(self._pool.map(self._decoded, images.to_pylist()))
        answers = local.answered(self._model, decoded, self._top_k)
        return pa.table({"row": [json.dumps(row.to_dict()) for row in answers]})

    def _decoded(self, image: dict[str, Any]) -> local.Decoded:
        if image["error"] is not None:
            return image["name"], image["error"]
        record = Record(image["name"], lambda: image["data"])
        return local.decoded(record, self._model.card.preprocessing)
