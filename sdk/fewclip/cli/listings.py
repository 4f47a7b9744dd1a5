"""`fewclip methods` and `fewclip backbones`: tables that help to choose. No torch at import."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fewclip.cli.arguments import json_flag, print_json


def methods_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `methods`."""
    parser.add_argument("name", nargs="?", help="show this method's options, for --set")
    json_flag(parser)


def methods(arguments: argparse.Namespace) -> int:
    """All methods, or one with its options."""
    from fewclip.methods import describe, list_methods, option_defaults, resolve

    names = [resolve(arguments.name)] if arguments.name else list_methods()
    rows: list[dict[str, Any]] = [{"name": n, "description": describe(n)} for n in names]
    if arguments.json:
        rows = [{**row, "options": option_defaults(row["name"])} for row in rows]
        print_json(rows)
        return 0
    if arguments.name:
        print(f"{rows[0]['name']}: {rows[0]['description']}")
        options = option_defaults(names[0])
        if not options:
            print("\nIt has no options.")
            return 0
        print("\nOptions and their defaults:")
        for key, value in options.items():
            print(f"  --set {key}={_shown(value)}")
        print("\nA backbone may bring defaults of its own; what you set wins.")
        return 0
    plain = [row for row in rows if not str(row["name"]).endswith("+dept")]
    lifted = {str(row["name"]).removesuffix("+dept") for row in rows if row not in plain}
    print(f"{'method':<15}{'+dept':<7}what it is")
    for row in plain:
        print(f"{row['name']:<15}{'yes' if row['name'] in lifted else '':<7}{row['description']}")
    print("\ndept means kgcoop+dept. Which is best for your images: fewclip compare DATA")
    print("A method's options: fewclip methods NAME")
    return 0


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def backbones_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `backbones`."""
    parser.add_argument("--all", action="store_true", help="every name that open_clip knows")
    json_flag(parser)


def backbones(arguments: argparse.Namespace) -> int:
    """The ones to try first, or all of them."""
    from fewclip.backbone.listing import FEATURES, MICRO_IS_WEAK, list_backbones
    from fewclip.methods.registry import feature_methods

    found = list_backbones()
    if arguments.json:
        print_json([each.to_dict() for each in found])
        return 0
    shown = found if arguments.all else [each for each in found if each.summary.note]
    width = max(map(len, shown)) + 2
    print(
        f"{'backbone':<{width}}{'weights':>9}{'pixels':>8}{'features':>10}{'tokens':>8}  "
        f"{'licence':<14}{'methods':<15}for"
    )
    for each in shown:
        about = each.summary
        # float32, so four bytes each
        size = "-" if about.parameters is None else f"{4 * about.parameters / 1e9:.2g} GB"
        print(
            f"{each:<{width}}{size:>9}{about.resolution:>8}{about.embed_dim:>10}"
            f"{about.context_length:>8}  {about.licence or '-':<14}{about.supports:<15}{about.note}"
        )
    print(f"\n{MICRO_IS_WEAK}")
    print(f"{FEATURES}: {', '.join(feature_methods())}.")
    if not arguments.all:
        print(f"{len(found)} in all: fewclip backbones --all. Or a folder with")
        print("open_clip_config.json and open_clip_model.safetensors.")
    return 0
