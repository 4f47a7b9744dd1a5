"""Many images: from a source to a file of rows, on this machine or on Ray. No torch.

    from fewclip import bulk

    bulk.predict("pets-onnx", "photos/", "rows.csv")
    bulk.predict("pets-onnx", "s3://bucket/shards/*.tar", "rows/", engine="ray")

Interrupted at any moment and called again, it resumes where it stopped and ends up with exactly one
row per image.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fewclip import decide
from fewclip.bulk import local, sources
from fewclip.bulk.progress import Reporter
from fewclip.bulk.resume import Done, Pending, pending
from fewclip.bulk.row import Row
from fewclip.bulk.sinks import PART_ROWS, PART_SECONDS, Output, open_output
from fewclip.contract import Card
from fewclip.errors import OptionError, StoppedError
from fewclip.model_folder.opening import open_model

if TYPE_CHECKING:
    from fewclip.base import BaseClassifier
    from fewclip.bulk.ray_engine import Actors

__all__ = ["ENGINES", "Row", "Summary", "predict"]

ENGINES = ("local", "ray")

Source = str | os.PathLike[str]
Answer = Callable[[Iterator[Pending], int], Generator[Row]]  # what is left, top_k -> rows


@dataclasses.dataclass(frozen=True)
class Summary:
    """What one call of `predict` did.

    Attributes:
        out: where all rows are.
        done: rows that were there before.
        rows: rows that were added.
        errors: those of them whose image could not be read.
        images_per_second: of the added ones.
    """

    out: str
    done: int
    rows: int
    errors: int
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)


def predict(
    model: Source | BaseClassifier,
    source: Source | Sequence[Source],
    out: Source,
    *,
    top_k: int = 5,
    engine: str = "local",
    ray_address: str | None = None,
    image_column: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    part_rows: int = PART_ROWS,
    part_seconds: float = PART_SECONDS,
    actors: Actors | None = None,
) -> Summary:
    """Write one row per image: image, label, score, known, the `top_k` best classes, error.

    Called again with the same model and `out`, it skips the images that already have a row.

    Args:
        model: an exported folder, a saved model, or a classifier; Ray takes exported folders only.
        source: what `sources.shards` takes: image files, folders, CSV, Parquet, Arrow, WebDataset
            shards, or URLs of these; one or several.
        out: FILE.csv, FILE.jsonl, a folder for Parquet parts, or the URL of one ("s3://...").
        top_k: classes in each row.
        engine: "local", or "ray" (the `scale` extra).
        ray_address: of a running cluster; None starts Ray on this machine.
        image_column: the column of Parquet and Arrow files with images or paths.
        overwrite: start over if an earlier run left rows.
        progress: report progress on stderr.
        part_rows, part_seconds: rows are on disk after at most this many rows or seconds.
        actors: the pool of engine "ray".

    Raises:
        InputError: the model, a source, an option or `out` is at fault.
        MissingExtraError: the `scale` extra is needed and missing.
        StoppedError: Ctrl-C; the same call resumes.
    """
    named = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    decide.check_top_k(top_k)
    if engine not in ENGINES:
        raise OptionError(f"unknown engine {engine!r}; use {' or '.join(ENGINES)}")
    sources.check(named, column=image_column)
    card, answer = _ray(model, ray_address, actors) if engine == "ray" else _local(model)
    top_k = min(top_k, len(card.classes))
    with open_output(
        out,
        _run(card, top_k),
        top_k,
        overwrite=overwrite,
        part_rows=part_rows,
        part_seconds=part_seconds,
    ) as output:
        report = Reporter(sum(1 for _ in output.images()), shown=progress)
        _count(named, image_column, report)
        found = sources.shards(named, column=image_column)
        left = pending(found, Done(output.images()))
        _collect(answer(left, top_k), output, report)
    report.finish()
    return Summary(
        str(out), report.done, report.rows, report.errors, report.rate if report.rows else 0.0
    )


def _local(model: Source | BaseClassifier) -> tuple[Card, Answer]:
    clf = open_model(model) if isinstance(model, (str, os.PathLike)) else model

    def answer(left: Iterator[Pending], top_k: int) -> Generator[Row]:
        return local.rows(clf, (r for each in left for r in each.records()), top_k=top_k)

    return clf.card, answer


def _ray(
    model: Source | BaseClassifier, address: str | None, actors: Actors | None
) -> tuple[Card, Answer]:
    from fewclip.bulk import ray_engine

    folder, card = ray_engine.exported(model)

    def answer(left: Iterator[Pending], top_k: int) -> Generator[Row]:
        return ray_engine.rows(folder, left, top_k=top_k, address=address, actors=actors)

    return card, answer


def _collect(new: Generator[Row], output: Output, report: Reporter) -> None:
    try:
        with contextlib.closing(new):
            for row in new:
                output.add(row)
                report.row(failed=row.error is not None)
    except KeyboardInterrupt as error:
        raise StoppedError(
            f"stopped after {report.done + report.rows:,} images, whose rows are kept; the same "
            "command goes on from there"
        ) from error


def _run(card: Card, top_k: int) -> dict[str, Any]:
    """What rows depend on. The card holds the hash of every file of a model."""
    text = json.dumps(card.to_dict(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"model": f"{card.name} ({digest})", "top_k": top_k}


def _count(named: Sequence[Source], column: str | None, report: Reporter) -> None:
    """Count in the background; the total stays unknown if counting would read everything."""

    def count() -> None:
        total = 0
        for shard in sources.shards(named, column=column):
            n = shard.count()
            if n is None:
                return
            total += n
        report.total = total

    def quietly() -> None:  # the work itself reports whatever is wrong with a source
        with contextlib.suppress(Exception):
            count()

    threading.Thread(target=quietly, name="count", daemon=True).start()
