"""What several subcommands share: text to values, values to JSON. No subcommand is defined here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewclip.contract import plain_json
from fewclip.errors import InputError

Parser = argparse.ArgumentParser
Arguments = argparse.Namespace


def json_flag(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def hardware_arguments(parser: Parser) -> None:
    parser.add_argument("--device", default="auto", help="'auto', 'cpu' or 'cuda'")
    parser.add_argument("--precision", default="auto", help="'auto', 'fp32' or 'bf16'")


def class_arguments(parser: Parser, template: str) -> None:
    """Add the arguments for class names and the sentence around them."""
    parser.add_argument("--template", default=template, help="prompt with one {}")
    parser.add_argument(
        "--classes", help="JSON: a list of labels, or {label: phrase}; or a file that holds it"
    )


def engine_arguments(parser: Parser) -> None:
    """Add the arguments for where `bench` and `compare` run."""
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: several runs at once"
    )
    parser.add_argument("--ray-address", metavar="A", help="of a running cluster, or 'auto'")
    parser.add_argument(
        "--ray-cpus", type=float, default=1.0, metavar="N", help="CPUs of each run; default: 1"
    )


def adapt_settings(arguments: Arguments) -> dict[str, Any]:
    """The settings that `adapt` and `compare` share, as their keyword arguments."""
    return {
        "backbone": arguments.backbone,
        "shots": shots(arguments.shots),
        "classes": class_names(arguments.classes),
        "template": arguments.template,
        "seed": arguments.seed,
        "device": arguments.device,
        "precision": arguments.precision,
    }


def model_arguments(parser: Parser) -> None:
    """Add the arguments for a model of either kind; see `model_folder.opening`."""
    parser.add_argument("model", help="a saved model or an exported folder, or hf://owner/name")
    json_flag(parser)
    download_flag(parser)


def download_flag(parser: Parser) -> None:
    parser.add_argument(
        "--allow-download",
        action="store_true",
        help="fetch the backbone that a saved model names, where it is not in the local cache",
    )


def print_json(value: Any) -> None:
    """One document on stdout; non-finite numbers become null, because NaN is not JSON."""
    print(json.dumps(plain_json(value), ensure_ascii=False, indent=2, allow_nan=False))


def shots(text: str) -> Any:
    return text if text == "all" else number(text)


def number(text: str) -> Any:
    """'16' -> 16, '0.2' -> 0.2, anything else stays a string."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """['omega=4', 'context=a photo of'] -> {'omega': 4, 'context': 'a photo of'}."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"--set wants KEY=VALUE, got {pair!r}")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            parts = [number(part) for part in value.split(",")]
            numbers = len(parts) > 1 and not any(isinstance(part, str) for part in parts)
            settings[key] = parts if numbers else value
    return settings


def class_names(text: str | None) -> Any:
    if text is None:
        return None
    file = Path(text)
    try:
        source = file.read_text("utf-8") if text.lstrip()[:1] not in "[{" else text
        value = json.loads(source)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--classes wants a JSON list or object, or a file that holds one: {error}"
        ) from error
    if not isinstance(value, (list, dict)):
        raise InputError(f"--classes wants a JSON list or object, got {text!r}")
    return value


def one_line(text: str) -> str:
    """The same words without line breaks."""
    return " ".join(text.split())
