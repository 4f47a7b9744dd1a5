"""The subcommands of `fewclip`: what each does and where it is. Only the named one is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from fewclip.cli.arguments import Arguments, Parser
from fewclip.cli.help import GroupedParser


class Subcommand(NamedTuple):
    """One subcommand.

    Attributes:
        run: "module:function", imported when the subcommand is named: arguments -> exit status.
        arguments: "module:function" that declares what `run` reads; default: `run` + "_arguments".
    """

    help: str
    run: str
    arguments: str = ""

    def add_arguments(self, parser: Parser) -> None:
        _load(self.arguments or f"{self.run}_arguments")(parser)

    def __call__(self, arguments: Arguments) -> int:
        return int(_load(self.run)(arguments))


SUBCOMMANDS = {
    "adapt": Subcommand("adapt CLIP to your images", "fewclip.cli.adapt:adapt"),
    "predict": Subcommand("classify images", "fewclip.cli.predict:predict"),
    "evaluate": Subcommand(
        "measure a model on labelled images", "fewclip.cli.saved_model:evaluate"
    ),
    "add-classes": Subcommand(
        "add classes by name, no training", "fewclip.cli.saved_model:add_classes"
    ),
    "export": Subcommand("write ONNX, proven to answer alike", "fewclip.cli.saved_model:export"),
    "serve": Subcommand("serve an exported model over HTTP", "fewclip_service.command:serve"),
    "build": Subcommand("make a Bento with the model inside", "fewclip_service.command:build"),
    "push": Subcommand("publish a model on the Hugging Face Hub", "fewclip.cli.saved_model:push"),
    "app": Subcommand("open the page: upload, adapt, classify", "fewclip_app.command:app"),
    "compare": Subcommand(
        "find the best method for your images",
        "fewclip.selection.command:compare_command",
        "fewclip.selection.command:compare_arguments",
    ),
    "check": Subcommand("find faults in a data set", "fewclip.cli.insight:check"),
    "explain": Subcommand("show which parts spoke for a class", "fewclip.cli.insight:explain"),
    "suggest": Subcommand("name the images to label next", "fewclip.cli.insight:suggest"),
    "bench": Subcommand("run the papers' protocols", "fewclip.bench.command:bench"),
    "info": Subcommand("show a model's card", "fewclip.cli.saved_model:info"),
    "demo": Subcommand("the main job on two bundled data sets", "fewclip.cli.demo:demo"),
    "methods": Subcommand("list the methods, or one's options", "fewclip.cli.listings:methods"),
    "backbones": Subcommand("list the backbones", "fewclip.cli.listings:backbones"),
    "completion": Subcommand(
        "print a completion script for your shell", "fewclip.cli.subcommands:completion"
    ),
}


def parser(complete: Collection[str | None]) -> Parser:
    """The parser; only the subcommands in `complete` get their arguments, the others a name."""
    from fewclip import __version__

    top = GroupedParser(prog="fewclip", description="A few photos per class in, a classifier out.")
    top.summaries = {name: subcommand.help for name, subcommand in SUBCOMMANDS.items()}
    top.add_argument("--version", action="version", version=f"fewclip {__version__}")
    choices = top.add_subparsers(
        dest="subcommand", metavar="SUBCOMMAND", required=True, parser_class=Parser
    )
    for name, subcommand in SUBCOMMANDS.items():
        sub = choices.add_parser(name, help=subcommand.help, description=subcommand.help)
        if name in complete:
            subcommand.add_arguments(sub)
    return top


def completion_arguments(parser: Parser) -> None:
    """Add the arguments of `completion`."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    parser.epilog = 'bash: put  eval "$(fewclip completion bash)"  into ~/.bashrc'


def completion(arguments: Arguments) -> int:
    """Print the shell's completion script."""
    import shtab

    print(shtab.complete(parser(SUBCOMMANDS), arguments.shell))
    return 0


def _load(function: str) -> Callable[[Any], Any]:
    """'module:function' -> the function; its module is imported now."""
    module, name = function.split(":")
    loaded: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return loaded
