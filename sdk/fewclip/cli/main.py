"""The `fewclip` command: arguments in, one exit status out. A subcommand is imported when named.

Exit status: 0 done; 2 the user's input is at fault (one line on stderr); 1 our fault (a traceback);
130 stopped by Ctrl-C. With --json exactly one JSON document goes to stdout; all else to stderr.
"""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from fewclip.artifact import DISK_REFUSES
from fewclip.cli.arguments import Arguments, Parser, one_line
from fewclip.cli.help import GroupedParser
from fewclip.errors import FewclipError, InputError, MissingExtraError, StoppedError


class Subcommand(NamedTuple):
    """One word of the command line.

    Attributes:
        run: "module:function", imported when the subcommand is named: arguments -> exit status.
        arguments: declares what `run` reads; `run` with `_arguments` after it where not given.
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
    "evaluate": Subcommand("measure a model on labelled images", "fewclip.cli.commands:evaluate"),
    "add-classes": Subcommand(
        "add classes by name, no training", "fewclip.cli.commands:add_classes"
    ),
    "export": Subcommand("write ONNX, proven to answer alike", "fewclip.cli.commands:export"),
    "serve": Subcommand("serve an exported model over HTTP", "fewclip_service.command:serve"),
    "build": Subcommand("make a Bento with the model inside", "fewclip_service.command:build"),
    "push": Subcommand("publish a model on the Hugging Face Hub", "fewclip.cli.commands:push"),
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
    "info": Subcommand("show a model's card", "fewclip.cli.commands:info"),
    "demo": Subcommand("the main job on two bundled data sets", "fewclip.cli.commands:demo"),
    "methods": Subcommand("list the methods, or one's options", "fewclip.cli.listings:methods"),
    "backbones": Subcommand("list the backbones", "fewclip.cli.listings:backbones"),
    "completion": Subcommand(
        "print a completion script for your shell", "fewclip.cli.main:completion"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = _parse(argv)
    warnings.showwarning = _one_line_warning
    try:
        return SUBCOMMANDS[arguments.subcommand](arguments)
    except StoppedError as error:
        hint = "; the same command with --resume continues from there" if error.checkpoint else ""
        print(f"fewclip: {error}{hint}", file=sys.stderr)
        return 130
    except (InputError, MissingExtraError) as error:
        print(f"fewclip: {one_line(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name or "")
        if extra is None:
            traceback.print_exc()
            return 1
        print(f"fewclip: {MissingExtraError(arguments.subcommand, extra)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fewclip: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if error.errno not in DISK_REFUSES:
            traceback.print_exc()
        else:
            where = f": {error.filename}" if error.filename else ""
            print(f"fewclip: cannot write: {error.strerror}{where}", file=sys.stderr)
        return 1
    except (FewclipError, Exception):
        traceback.print_exc()
        return 1


def _parse(argv: list[str]) -> Arguments:
    named = next((word for word in argv if not word.startswith("-")), None)
    return parser({named}).parse_args(argv)


def parser(complete: Collection[str | None]) -> Parser:
    """The parser; the subcommands in `complete` know their arguments, the others only a name."""
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
    """Add the shell's name."""
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


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"fewclip: warning: {one_line(str(message))}", file=sys.stderr)


def _extra_of(module: str) -> str | None:
    """The extra that brings a module; None when no extra of ours does."""
    homes = {
        "torch": "train",
        "open_clip": "train",
        "safetensors": "train",
        "tqdm": "train",
        "matplotlib": "train",
        "onnx": "export",
        "onnxscript": "export",
        "bentoml": "service",
        "fastapi": "service",
        "gradio": "app",
        "sklearn": "train",
        "shtab": "train",
        "cleanlab": "check",
    }
    return homes.get(module.split(".")[0])


if __name__ == "__main__":
    sys.exit(main())
