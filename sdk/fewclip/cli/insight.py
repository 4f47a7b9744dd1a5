"""`fewclip check`: what is odd about a data set. Arguments in, words and files out."""

from __future__ import annotations

import argparse
import json
import sys

Parser = argparse.ArgumentParser
Arguments = argparse.Namespace


def check_arguments(parser: Parser) -> None:
    """Add what `check` reads."""
    parser.add_argument("data", help="a folder with one sub-folder per class, or a CSV")
    parser.add_argument("--out", metavar="DIR", help="write index.html, report.json and fixes.csv")
    parser.add_argument("--backbone", default="micro", help="see `fewclip backbones`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="'auto', 'cpu' or 'cuda'")
    parser.add_argument(
        "--thorough", action="store_true", help="list every doubtful label, also likely right ones"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def check(arguments: Arguments) -> int:
    """Exit status 0 whatever was found."""
    from fewclip.check import check

    report = check(
        arguments.data,
        backbone=arguments.backbone,
        seed=arguments.seed,
        device=arguments.device,
        thorough=arguments.thorough,
    )
    page = report.save(arguments.out) if arguments.out else None
    if arguments.json:
        print(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
    else:
        print(report)
    if page is not None:
        print(f"saved: {page}", file=sys.stderr)
    return 0
