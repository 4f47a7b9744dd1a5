"""`fewclip predict`: answers printed, or with --out written as one row per image. No torch here."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

from fewclip.cli.arguments import download_flag
from fewclip.contract import plain_json
from fewclip.errors import DataError, OptionError


def predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    parser.add_argument("model", help="a saved model or an exported folder, or hf://owner/name")
    parser.add_argument(
        "images",
        nargs="+",
        metavar="SOURCE",
        help="an image, a folder, a CSV, a Parquet or Arrow file, a WebDataset .tar, or the URL "
        "of one (s3://, gs://, hf://, https://)",
    )
    parser.add_argument("--top-k", type=int, default=5, help="how many classes to name")
    parser.add_argument(
        "--coverage", type=float, help="0.9: also name the labels that hold the truth 9 in 10 times"
    )
    parser.add_argument(
        "--image-column", metavar="NAME", help="of Parquet and Arrow files: images or their paths"
    )
    parser.add_argument(
        "--out",
        metavar="FILE|DIR",
        help="write one row per image to FILE.csv, FILE.jsonl or a folder of Parquet parts, which "
        "may be s3://...; the same command goes on where it was interrupted",
    )
    parser.add_argument("--overwrite", action="store_true", help="with --out: start over")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="with --out: what runs it"
    )
    parser.add_argument("--ray-address", metavar="A", help="of a running cluster, or 'auto'")
    download_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def predict(arguments: argparse.Namespace) -> int:
    """Exit status 2 if images could not be read; with --out, if none could."""
    if arguments.allow_download:
        from fewclip.cli.saved_model import fetch_backbone

        fetch_backbone(arguments.model)
    if arguments.out is not None:
        return _write(arguments)
    if arguments.overwrite or arguments.engine != "local":
        raise OptionError("--engine and --overwrite need --out: where the rows go")
    rows: list[dict[str, Any]] = []
    errors: list[str] = []
    for row in _rows(arguments):
        if row["error"] is not None:
            errors.append(row["error"])
        elif not arguments.json:
            top = "  ".join(f"{t['label']} {t['score']:.1%}" for t in row["top"])
            unknown = "(unknown) " if row["known"] is False else ""
            among = f"  one of: {', '.join(row['prediction_set'])}" if arguments.coverage else ""
            print(f"{row['image']}: {unknown}{top}{among}")
        if arguments.json:
            rows.append(_plain(row))
    for error in errors:
        print(f"fewclip: {error}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(plain_json(rows), ensure_ascii=False, indent=2, allow_nan=False))
    return 2 if errors else 0


def _rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from fewclip import decide
    from fewclip.bulk import local, sources
    from fewclip.bulk.resume import Pending
    from fewclip.model_folder.opening import open_model

    decide.check_top_k(arguments.top_k)
    model = open_model(arguments.model)
    if arguments.coverage is not None:
        model.check_coverage(arguments.coverage)
    column = arguments.image_column
    for source, problem in _checked(arguments.images, column):
        if problem is not None:
            yield {"image": source[0], "error": problem}
            continue
        shards = sources.shards(source, column=column)
        records = (record for shard in shards for record in Pending(shard).records())
        for row in local.rows(model, records, top_k=arguments.top_k, coverage=arguments.coverage):
            yield row.to_dict()


def _checked(given: list[str], column: str | None) -> Iterator[tuple[list[str], str | None]]:
    """Sources in order: existing ones in groups, each missing one alone with the reason.

    Raises:
        DataError: none of them exists.
    """
    from fewclip.bulk import sources

    found: dict[str, DataError | None] = {}
    for source in given:
        try:
            sources.check([source], column=column)
            found[source] = None
        except DataError as error:
            found[source] = error
    if all(found.values()):
        raise next(error for error in found.values() if error is not None)
    for missing, group in itertools.groupby(given, lambda source: found[source] is not None):
        if not missing:
            yield list(group), None
        else:
            yield from (([source], str(found[source])) for source in group)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as --json prints it: an answer, or an error."""
    if row["error"] is not None:
        return {"image": row["image"], "error": row["error"]}
    return {key: value for key, value in row.items() if key != "error"}


def _write(arguments: argparse.Namespace) -> int:
    from fewclip import bulk

    if arguments.coverage is not None:
        raise OptionError("--coverage is printed, not written to --out; leave one of the two out")
    summary = bulk.predict(
        arguments.model,
        arguments.images,
        arguments.out,
        top_k=arguments.top_k,
        engine=arguments.engine,
        ray_address=arguments.ray_address,
        image_column=arguments.image_column,
        overwrite=arguments.overwrite,
    )
    if arguments.json:
        print(json.dumps(summary.to_dict(), indent=2))
    else:
        print(f"saved: {arguments.out} ({summary.done + summary.rows:,} rows)")
        if summary.errors:
            print(
                f"fewclip: {summary.errors:,} images could not be read; their rows say why",
                file=sys.stderr,
            )
    return 2 if summary.rows and summary.errors == summary.rows else 0
