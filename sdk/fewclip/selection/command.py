"""`fewclip compare DATA`: arguments in, a table and a recommendation out. No torch at import."""

from __future__ import annotations

import argparse
import json
import sys

from fewclip.bench.published import PLAIN
from fewclip.cli.arguments import (
    adapt_settings,
    class_arguments,
    engine_arguments,
    hardware_arguments,
    json_flag,
)
from fewclip.selection.candidates import METHODS, split_names


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `compare_command` reads."""
    parser.add_argument("data", help="a folder with one sub-folder per class, or a CSV")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds; default: 600")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        metavar="M",
        help="methods, or rows of the table as they are called there (kgcoop+dept, gentle crops), "
        "separated by spaces or commas; default: what 'auto' tries, and more",
    )
    parser.add_argument("--folds", type=int, help="default: those that 'auto' has")
    parser.add_argument("--shots", default="16", help="images per class, or 'all'")
    parser.add_argument("--backbone", default="micro", help="see `fewclip backbones`")
    class_arguments(parser, PLAIN)
    parser.add_argument("--seed", type=int, default=0)
    hardware_arguments(parser)
    parser.add_argument("--out", metavar="DIR", help="keep finished runs, and go on from them")
    engine_arguments(parser)
    json_flag(parser)


def compare_command(arguments: argparse.Namespace) -> int:
    """Print the table and the recommendation."""
    from fewclip.selection.compare import compare

    found = compare(
        arguments.data,
        methods=split_names(arguments.methods),
        budget=arguments.budget,
        out=arguments.out,
        engine=arguments.engine,
        ray_address=arguments.ray_address,
        ray_cpus=arguments.ray_cpus,
        report_progress=lambda line: print(line, file=sys.stderr, flush=True),
        **adapt_settings(arguments),
        **({} if arguments.folds is None else {"folds": arguments.folds}),
    )
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=2) if arguments.json else found)
    return 0
