"""The subcommands `fewclip serve` and `fewclip build`: arguments in, exit status out."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from fewclip.artifact import read_card
from fewclip.errors import InputError
from fewclip.hub import is_address, local_folder
from fewclip.system.settings import flag
from fewclip_service.settings import Settings

_POSITIONAL = "model"


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one flag per setting; what is not given comes from the environment."""
    for field in dataclasses.fields(Settings):
        text = field.metadata["help"]
        if field.name == _POSITIONAL:
            parser.add_argument(
                field.name, metavar="DIR", nargs="+", help=f"{text}; several are served together"
            )
        elif isinstance(field.default, bool):
            parser.add_argument(flag(field.name), action="store_const", const="true", help=text)
        else:
            kind = type(field.default).__name__.upper()
            default = f" (default: {field.default})" if field.default != "" else ""
            parser.add_argument(flag(field.name), metavar=kind, help=text + default)


def serve(arguments: argparse.Namespace) -> int:
    """Run the service until it is stopped."""
    from fewclip_service.launch import serve as run

    names = [field.name for field in dataclasses.fields(Settings) if field.name != _POSITIONAL]
    read = Settings.read({name: getattr(arguments, name) for name in names})
    settings = {name: getattr(read, name) for name in names}
    with gathered(arguments.model) as root:
        return run(root, **settings)


@contextlib.contextmanager
def gathered(models: Sequence[str]) -> Iterator[Path]:
    """One folder to serve: the only one given, or a temporary one with a link to each.

    Raises:
        InputError: two of them have the same name, or one does not exist.
    """
    folders = [Path(os.path.abspath(local_folder(model))) for model in models]
    if len(folders) == 1:
        yield folders[0]
        return
    with tempfile.TemporaryDirectory(prefix="fewclip-models-") as root:
        for name, folder in zip(map(_served_name, models), folders, strict=True):
            read_card(folder, verify=False)
            try:
                (Path(root) / name).symlink_to(folder, target_is_directory=True)
            except FileExistsError as error:
                raise InputError(
                    f"two models are called {name!r}, and requests name the one they want; "
                    "rename a folder"
                ) from error
        yield Path(root)


def _served_name(model: str) -> str:
    """A folder's own name; for one from the Hub, named by commit, the repository's."""
    return Path(model.partition("@")[0] if is_address(model) else os.path.abspath(model)).name


def build_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder and the Bento's name."""
    parser.add_argument("model", metavar="DIR", help="an exported folder, or a folder of them")
    parser.add_argument("--name", help="of the Bento; the folder's when not given")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def build(arguments: argparse.Namespace) -> int:
    """Make a Bento and print its tag."""
    from fewclip_service.bento import build as make

    tag = make(local_folder(arguments.model), name=arguments.name or _served_name(arguments.model))
    if arguments.json:
        print(json.dumps({"tag": tag}))
        return 0
    print(f"{tag}\nnext:  bentoml serve {tag}\n       bentoml containerize {tag}")
    return 0
