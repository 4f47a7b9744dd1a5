"""`fewclip bench PROTOCOL DATA...`: arguments in, one table out. No torch at import."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from fewclip.cli.arguments import engine_arguments, hardware_arguments, json_flag
from fewclip.contract import plain_json
from fewclip.errors import OptionError

PROTOCOLS = {
    "base-to-new": "train on half of the classes, test each half separately",
    "cross-dataset": "train on one data set, test on others (--targets)",
    "domain": "train on one data set, test on other pictures of its classes (--targets)",
    "few-shot": "train on 1, 2, 4, 8, 16 images per class",
    "speed": "seconds, memory, images per second",
}


def bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `bench`."""
    from fewclip.bench.layouts import LAYOUTS
    from fewclip.bench.protocols import METHODS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        [
            "protocols:",
            *(f"  {name:<14} {text}" for name, text in PROTOCOLS.items()),
            f"\npublished data sets: {', '.join(LAYOUTS)}",
            f"\nmethods by default: {', '.join(METHODS)}",
        ]
    )
    parser.add_argument("protocol", choices=tuple(PROTOCOLS), metavar="PROTOCOL")
    parser.add_argument(
        "data", nargs="+", metavar="DATA", help="a published data set's name, a folder, CSV or .tar"
    )
    parser.add_argument("--root", help="the folder that holds the published data sets")
    parser.add_argument("--targets", nargs="+", metavar="DATA", help="what to test on besides")
    parser.add_argument("--methods", nargs="+", metavar="M", help="see `fewclip methods`")
    parser.add_argument("--seeds", nargs="+", metavar="S", help="default: 1 2 3")
    parser.add_argument(
        "--shots", nargs="+", metavar="N", help="images per class, or 'all'; default: 16"
    )
    parser.add_argument("--out", default="fewclip-bench", metavar="DIR", help="results and tables")
    parser.add_argument("--backbone", default="micro", help="see `fewclip backbones`")
    parser.add_argument("--template", help="instead of the published ones; holds one {}")
    parser.add_argument("--epochs", type=int, help="instead of each method's own")
    hardware_arguments(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[METHOD.]KEY=VALUE",
        help="an option of one method, or of all; may be repeated",
    )
    engine_arguments(parser)
    json_flag(parser)


def bench(arguments: argparse.Namespace) -> int:
    """Run one protocol; the table goes to stdout, one line per run to stderr."""
    from fewclip.bench import protocols

    chosen: dict[str, Any] = {
        "out": arguments.out,
        "root": arguments.root,
        "backbone": arguments.backbone,
        "template": arguments.template,
        "epochs": arguments.epochs,
        "device": arguments.device,
        "precision": arguments.precision,
        "options": _options(arguments.set),
        "engine": arguments.engine,
        "ray_address": arguments.ray_address,
        "ray_cpus": arguments.ray_cpus,
        "report_progress": lambda line: print(line, file=sys.stderr, flush=True),
    }
    if arguments.targets:
        chosen["targets"] = arguments.targets
    if arguments.methods:
        chosen["methods"] = words(arguments.methods)
    if arguments.seeds:
        chosen["seeds"] = [_whole("--seeds", word, 0) for word in words(arguments.seeds)]
    if arguments.shots:
        several = arguments.protocol == "few-shot"
        chosen["shots"] = _shots(words(arguments.shots), several=several)
    data: Any = arguments.data
    if arguments.protocol in ("cross-dataset", "domain"):
        if len(data) > 1:
            raise OptionError(
                f"{arguments.protocol} trains on one data set; name the others after --targets"
            )
        if arguments.protocol == "cross-dataset" and not arguments.targets:
            raise OptionError("cross-dataset needs --targets: what to test on")
        data = data[0]
    elif arguments.targets:
        raise OptionError(
            f"--targets is for cross-dataset and domain, not for {arguments.protocol}"
        )
    summary = getattr(protocols, arguments.protocol.replace("-", "_"))(data, **chosen)
    if arguments.json:
        print(json.dumps(plain_json(summary.to_dict()), ensure_ascii=False, indent=1))
    else:
        print(summary.to_markdown(), end="")
        print(f"saved: {arguments.out}/{summary.protocol}.md, .csv, .json, .png", file=sys.stderr)
    return 0


def words(given: Sequence[str]) -> list[str]:
    """Split at commas too: 'a b' and 'a,b' are the same two words."""
    return [word.strip() for each in given for word in each.split(",") if word.strip()]


def _whole(flag: str, word: str, least: int) -> int:
    if not word.isdecimal() or int(word) < least:
        raise OptionError(f"{flag} wants whole numbers of at least {least}, got {word!r}")
    return int(word)


def _shots(given: Sequence[str], *, several: bool) -> Any:
    shots = [word if word == "all" else _whole("--shots", word, 1) for word in given]
    if several:
        return shots
    if len(shots) > 1:
        raise OptionError("only few-shot takes several --shots; give one")
    return shots[0]


def _options(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """['skip-tuning.omega=2', 'batch_size=8'] -> {'skip-tuning': {'omega': 2}, '': {...}}."""
    from fewclip.cli.arguments import settings

    options: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        method, _, name = key.rpartition(".")
        options.setdefault(method, {}).update(settings([f"{name}{equals}{value}"]))
    return options
