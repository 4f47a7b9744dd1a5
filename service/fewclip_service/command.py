"""The verbs `fewclip serve` and `fewclip build`: words in, exit status out."""

from __future__ import annotations

import argparse
import dataclasses
import json

from fewclip_service.settings import Settings, parse

_POSITIONAL = "model"


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """One flag per setting; what is not given comes from the environment."""
    for field in dataclasses.fields(Settings):
        told = field.metadata["help"]
        if field.name == _POSITIONAL:
            parser.add_argument(field.name, metavar="DIR", help=told)
            continue
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(flag, action="store_const", const="true", help=told)
        else:
            shown = f"{told} (default: {field.default})" if field.default != "" else told
            parser.add_argument(flag, metavar=type(field.default).__name__.upper(), help=shown)


def serve(arguments: argparse.Namespace) -> int:
    """Run the service until it is told to stop."""
    from fewclip_service.launch import serve as run

    settings = dataclasses.asdict(Settings.from_env())
    for field in dataclasses.fields(Settings):
        text = getattr(arguments, field.name)
        if text is not None and field.name != _POSITIONAL:
            settings[field.name] = parse(field.name, text)
    del settings[_POSITIONAL]
    return run(arguments.model, **settings)


def build_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and the Bento's name."""
    parser.add_argument("model", metavar="DIR", help="an exported folder, or a folder of them")
    parser.add_argument("--name", help="of the Bento; the folder's when not given")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def build(arguments: argparse.Namespace) -> int:
    """Make a Bento and print its tag."""
    from fewclip_service.bento import build as make

    tag = make(arguments.model, name=arguments.name)
    if arguments.json:
        print(json.dumps({"tag": tag}))
        return 0
    print(f"{tag}\nnext:  bentoml serve {tag}\n       bentoml containerize {tag}")
    return 0
