"""The `fewclip` command: words in, one exit status out. Every verb imports what it needs itself.

Exit status: 0 done; 2 the user's input is at fault (one line on stderr); 1 our fault (a traceback);
130 stopped by Ctrl-C. With --json exactly one JSON document goes to stdout; all else to stderr.
"""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fewclip.cli import commands
from fewclip.cli.predict import predict, predict_arguments
from fewclip.errors import FewclipError, InputError, MissingExtraError, StoppedError

Parser = argparse.ArgumentParser
Arguments = argparse.Namespace


class Subcommand(NamedTuple):
    """One word of the command line; `arguments` runs only for the verb that was named."""

    help: str
    arguments: Callable[[Parser], None]
    run: Callable[[Arguments], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parse(words)
    warnings.showwarning = _one_line_warning
    try:
        return SUBCOMMANDS[arguments.verb].run(arguments)
    except StoppedError as error:
        hint = " (--resume goes on from there)" if error.checkpoint else ""
        print(f"fewclip: {error}{hint}", file=sys.stderr)
        return 130
    except (InputError, MissingExtraError) as error:
        print(f"fewclip: {commands.one_line(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name or "")
        if extra is None:
            traceback.print_exc()
            return 1
        print(f"fewclip: {MissingExtraError(arguments.verb, extra)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fewclip: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (FewclipError, Exception):
        traceback.print_exc()
        return 1


def _parse(words: list[str]) -> Arguments:
    from fewclip import __version__

    parser = Parser(prog="fewclip", description="A few photos per class in, a classifier out.")
    parser.add_argument("--version", action="version", version=f"fewclip {__version__}")
    choices = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    named = next((word for word in words if not word.startswith("-")), None)
    for name, verb in SUBCOMMANDS.items():
        sub = choices.add_parser(name, help=verb.help, description=verb.help)
        if name == named:
            verb.arguments(sub)
    return parser.parse_args(words)


# ---- verbs that live with what they start ----------------------------------------------------


def _serve_arguments(parser: Parser) -> None:
    from fewclip_service.command import serve_arguments

    serve_arguments(parser)


def _serve(arguments: Arguments) -> int:
    from fewclip_service.command import serve

    return serve(arguments)


def _build_arguments(parser: Parser) -> None:
    from fewclip_service.command import build_arguments

    build_arguments(parser)


def _build(arguments: Arguments) -> int:
    from fewclip_service.command import build

    return build(arguments)


def _app_arguments(parser: Parser) -> None:
    from fewclip_app.command import app_arguments

    app_arguments(parser)


def _app(arguments: Arguments) -> int:
    from fewclip_app.command import app

    return app(arguments)


def _compare_arguments(parser: Parser) -> None:
    from fewclip.selection.compare import compare_arguments

    compare_arguments(parser)


def _compare(arguments: Arguments) -> int:
    from fewclip.selection.compare import compare_command

    return compare_command(arguments)


def _bench_arguments(parser: Parser) -> None:
    from fewclip.bench.command import bench_arguments

    bench_arguments(parser)


def _bench(arguments: Arguments) -> int:
    from fewclip.bench.command import bench

    return bench(arguments)


SUBCOMMANDS = {
    "adapt": Subcommand("adapt CLIP to your images", commands.adapt_arguments, commands.adapt),
    "predict": Subcommand("classify images", predict_arguments, predict),
    "evaluate": Subcommand(
        "measure a model on labelled images", commands.evaluate_arguments, commands.evaluate
    ),
    "add-classes": Subcommand(
        "add classes by name, no training", commands.add_classes_arguments, commands.add_classes
    ),
    "export": Subcommand(
        "write ONNX, proven to answer alike", commands.export_arguments, commands.export
    ),
    "serve": Subcommand("serve an exported model over HTTP", _serve_arguments, _serve),
    "build": Subcommand("make a Bento with the model inside", _build_arguments, _build),
    "app": Subcommand("open the page: upload, adapt, classify", _app_arguments, _app),
    "compare": Subcommand("find the best method for your images", _compare_arguments, _compare),
    "bench": Subcommand("run the papers' protocols", _bench_arguments, _bench),
    "info": Subcommand("show a model's card", commands.info_arguments, commands.info),
    "demo": Subcommand(
        "the main job on two bundled data sets", commands.demo_arguments, commands.demo
    ),
    "methods": Subcommand("list the methods", commands.json_flag, commands.methods),
    "backbones": Subcommand("list the backbones", commands.json_flag, commands.backbones),
}


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"fewclip: warning: {commands.one_line(str(message))}", file=sys.stderr)


def _extra_of(module: str) -> str | None:
    """The extra that brings a module; None when it is none of ours to bring."""
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
    }
    return homes.get(module.split(".")[0])


if __name__ == "__main__":
    sys.exit(main())
