"""`fewclip methods` and `fewclip backbones`: tables that help to choose. No torch at import."""

from __future__ import annotations

import argparse
import json
from typing import Any

# What to take when one does not know: name, size in float32, what for.
USUAL_BACKBONES = (
    ("micro", "0.04 GB", "bundled, 64 px: for trying things out"),
    ("ViT-B-32/laion2b_s34b_b79k", "0.6 GB", "fast on a CPU"),
    ("ViT-B-16/openai", "0.6 GB", "the papers' backbone, the usual choice"),
    ("ViT-L-14/laion2b_s32b_b82k", "1.7 GB", "the best answers; train it on a GPU"),
)


def methods_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `methods` reads."""
    parser.add_argument("name", nargs="?", help="show this method's options, for --set")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def methods(arguments: argparse.Namespace) -> int:
    """All methods, or one with its options."""
    from fewclip.methods import describe, list_methods, make_options, resolve

    names = [resolve(arguments.name)] if arguments.name else list_methods()
    rows: list[dict[str, Any]] = [{"name": n, "description": describe(n)} for n in names]
    if arguments.json:
        rows = [{**row, "options": make_options(row["name"], {})} for row in rows]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return 0
    if arguments.name:
        print(f"{rows[0]['name']}: {rows[0]['description']}\n\noptions and their defaults:")
        for key, value in make_options(names[0], {}).items():
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
    """Add what `backbones` reads."""
    parser.add_argument("--all", action="store_true", help="every name that open_clip knows")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def backbones(arguments: argparse.Namespace) -> int:
    """The usual ones, or all of them."""
    from fewclip.backbone import list_backbones

    names = list_backbones()
    if arguments.json:
        print(json.dumps([{"name": name} for name in names], indent=2))
        return 0
    if arguments.all:
        print("\n".join(names))
        return 0
    print(f"{'backbone':<29}{'weights':<10}for")
    for name, size, purpose in USUAL_BACKBONES:
        print(f"{name:<29}{size:<10}{purpose}")
    print(f"\n{len(names)} in all: fewclip backbones --all. Or a folder with open_clip_config.json")
    print("and open_clip_model.safetensors.")
    return 0
