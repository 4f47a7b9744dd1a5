"""`fewclip compare DATA`: arguments in, one table and one advice out. No torch at import."""

from __future__ import annotations

import argparse
import json
import sys

from fewclip.bench.published import PLAIN
from fewclip.selection.compare import METHODS, compare


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `compare_command` reads."""
    parser.add_argument("data", help="a folder with one sub-folder per class, or a CSV")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds; default: 600")
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="M")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--shots", default="16", help="training images per class, or 'all'")
    parser.add_argument("--backbone", default="micro", help="see `fewclip backbones`")
    parser.add_argument("--template", default=PLAIN, help="prompt with one {}")
    parser.add_argument(
        "--classes", help="JSON: a list of labels, or {label: phrase}; or a file that holds it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="'auto', 'cpu' or 'cuda'")
    parser.add_argument("--precision", default="auto", help="'auto', 'fp32' or 'bf16'")
    parser.add_argument("--out", metavar="DIR", help="keep finished runs, and go on from them")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: several runs at once"
    )
    parser.add_argument("--ray-address", metavar="A", help="of a running cluster, or 'auto'")
    parser.add_argument(
        "--ray-cpus", type=float, default=1.0, metavar="N", help="CPUs of each run; default: 1"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def compare_command(arguments: argparse.Namespace) -> int:
    """Print the table and the advice."""
    from fewclip.bench.command import words
    from fewclip.cli.arguments import class_names, shots

    found = compare(
        arguments.data,
        methods=words(arguments.methods),
        budget=arguments.budget,
        folds=arguments.folds,
        shots=shots(arguments.shots),
        backbone=arguments.backbone,
        classes=class_names(arguments.classes),
        template=arguments.template,
        seed=arguments.seed,
        device=arguments.device,
        precision=arguments.precision,
        out=arguments.out,
        engine=arguments.engine,
        ray_address=arguments.ray_address,
        ray_cpus=arguments.ray_cpus,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=2) if arguments.json else found)
    return 0
