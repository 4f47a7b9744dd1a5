"""The subcommand `fewclip app`: flags -> the page. Importing it loads no Gradio."""

from __future__ import annotations

import argparse
import dataclasses

from fewclip.system.settings import flag
from fewclip_app.settings import Settings


def app_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's flags."""
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network")
    parser.add_argument("--port", type=int, default=7860)
    for field in dataclasses.fields(Settings):
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        parser.add_argument(
            flag(field.name),
            help=f"{field.metadata['help']} (default {default or 'none'}; "
            f"or {Settings.variable(field.name)})",
        )


def app(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from fewclip_app.server import run

    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)}
    run(host=arguments.host, port=arguments.port, settings=Settings.read(given))
    return 0
