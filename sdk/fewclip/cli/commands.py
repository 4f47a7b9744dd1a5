"""The SDK's verbs of the command line: arguments in, words and files out. No torch at import."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewclip.contract import plain_json
from fewclip.errors import InputError

if TYPE_CHECKING:
    from fewclip.base import BaseClassifier
    from fewclip.contract import Card

Parser = argparse.ArgumentParser
Arguments = argparse.Namespace


def _print_json(value: Any) -> None:
    # What is not finite becomes null: NaN is no JSON.
    print(json.dumps(plain_json(value), ensure_ascii=False, indent=2, allow_nan=False))


def json_flag(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


# ---- adapt -----------------------------------------------------------------------------------


def adapt_arguments(parser: Parser) -> None:
    parser.add_argument(
        "data",
        help="a folder with one sub-folder per class, a CSV, Parquet, Arrow or a WebDataset .tar",
    )
    parser.add_argument("--out", required=True, metavar="MODEL", help="the folder to write")
    parser.add_argument("--method", default="skip-tuning", help="see `fewclip methods`")
    parser.add_argument("--shots", default="16", help="training images per class, or 'all'")
    parser.add_argument("--val", default="auto", help="'auto', a fraction, a folder, or 0")
    parser.add_argument("--backbone", default="micro", help="see `fewclip backbones`")
    parser.add_argument("--template", default="a photo of a {}.", help="prompt with one {}")
    parser.add_argument(
        "--classes", help="JSON: a list of labels, or {label: phrase}; or a file that holds it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--device", default="auto", help="'auto', 'cpu' or 'cuda'")
    parser.add_argument("--precision", default="auto", help="'auto', 'fp32' or 'bf16'")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the method; may be repeated",
    )
    parser.add_argument("--resume", action="store_true", help="continue from MODEL.checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing MODEL")
    json_flag(parser)


def adapt(arguments: Arguments) -> int:
    from fewclip import artifact
    from fewclip.training import run_lock

    out = Path(arguments.out)
    kept = out.with_name(out.name + ".checkpoint")
    finished = arguments.resume and not arguments.overwrite and (out / "card.json").is_file()
    if not finished:
        artifact.check_target(out, overwrite=arguments.overwrite)
    with run_lock.held(kept):
        card = _adapted(arguments, out, kept, finished)
    _report_adapted(arguments, card)
    return 0


def _adapted(arguments: Arguments, out: Path, kept: Path, finished: bool) -> Card:
    """The card of the model in `out`: trained now, or found there `finished`."""
    from fewclip import artifact
    from fewclip.training import adapt, checkpoint
    from fewclip.training.progress import to_stderr

    made = adapt.plan(
        arguments.data,
        method=arguments.method,
        backbone=arguments.backbone,
        shots=shots(arguments.shots),
        classes=class_names(arguments.classes),
        template=arguments.template,
        val=_number(arguments.val),
        epochs=arguments.epochs,
        seed=arguments.seed,
        device=arguments.device,
        precision=arguments.precision,
        checkpoint=kept if arguments.resume else None,
        **settings(arguments.set),
    )
    print(made.split.describe(), file=sys.stderr, flush=True)
    if finished:
        card = artifact.read_card(out)
        if card.training.get("run_id") != made.run_id:
            raise InputError(
                f"{out} holds a model of another run; give another --out, or --overwrite"
            )
        print(f"{out} is finished already: the same data and settings", file=sys.stderr)
        return card
    aside = None if arguments.resume else checkpoint.set_aside(kept)
    if aside is not None:
        print(
            f"a run was under way in {kept}: kept as {aside.name} until this one is done "
            "(--resume would have continued it)",
            file=sys.stderr,
        )
    made = dataclasses.replace(made, checkpoint=kept)
    clf = adapt.execute(made, progress=to_stderr())
    clf.save(out, overwrite=arguments.overwrite)
    checkpoint.remove(kept)
    return artifact.read_card(out, verify=False)


def _report_adapted(arguments: Arguments, card: Card) -> None:
    if arguments.json:
        _print_json(card.to_dict())
        return
    before, after = card.metrics.get("before"), card.metrics.get("after")
    if before and after:
        print(
            f"accuracy on {after['n']} images kept out of training: "
            f"{before['accuracy']:.1%} before, {after['accuracy']:.1%} after"
        )
    else:
        print("no images were kept out of training: not measured, scores are uncalibrated")
    print(f"saved: {arguments.out}")
    print(f"next:  fewclip predict {arguments.out} IMAGE ...")
    print(f"       fewclip export {arguments.out} --out {arguments.out}-onnx")


# ---- evaluate, info ------------------------------------------------------------------------


def open_model(path: str) -> BaseClassifier:
    """A saved model or an exported folder; torch is imported for the former alone."""
    from fewclip import artifact

    if artifact.read_card(path, verify=False).kind == "onnx":
        from fewclip.runtime import OnnxClassifier

        return OnnxClassifier(path)
    from fewclip.classifier import load

    return load(path)


def evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model or an exported folder")
    parser.add_argument("data", help="labelled images, in any form that adapt takes")
    parser.add_argument("--out", help="write report.json and pictures into this folder")
    json_flag(parser)


def evaluate(arguments: Arguments) -> int:
    report = open_model(arguments.model).evaluate(arguments.data)
    if arguments.out:
        report.save(arguments.out)
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(report)
    return 0


def info_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model or an exported folder")
    json_flag(parser)


def info(arguments: Arguments) -> int:
    from fewclip.artifact import read_card

    card = read_card(arguments.model)
    if arguments.json:
        _print_json(card.to_dict())
        return 0
    calibration = card.calibration
    print(f"{card.name}: {card.kind}, {card.method} on {card.backbone['name']}")
    print(f"classes ({len(card.classes)}): {', '.join(card.classes)}")
    print(f"template: {card.template}")
    if calibration.calibrated:
        print(f"calibrated on {calibration.n} images: temperature {calibration.temperature:.3f}")
    else:
        print("uncalibrated")
    print(f"made {card.created} by fewclip {card.fewclip_version}, seed {card.seed}")
    return 0


# ---- the rest of the SDK's verbs -------------------------------------------------------------


def add_classes_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--out", required=True, metavar="MODEL", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing MODEL")


def add_classes(arguments: Arguments) -> int:
    from fewclip import artifact
    from fewclip.classifier import load

    artifact.check_target(arguments.out, overwrite=arguments.overwrite)
    clf = load(arguments.model).add_classes(arguments.names)
    clf.save(arguments.out, overwrite=arguments.overwrite)
    print(f"saved: {arguments.out} ({len(clf.classes)} classes)")
    return 0


def export_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16", "int8"))
    parser.add_argument("--images", metavar="DATA", help="labelled images to prove parity on")
    parser.add_argument("--force", action="store_true", help="write it even if it differs")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing DIR")
    json_flag(parser)


def export(arguments: Arguments) -> int:
    from fewclip import artifact
    from fewclip.classifier import load

    artifact.check_target(arguments.out, overwrite=arguments.overwrite)
    report = load(arguments.model).export_onnx(
        arguments.out,
        arguments.precision,
        images=arguments.images,
        force=arguments.force,
        overwrite=arguments.overwrite,
    )
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(report)
        print(f"saved: {arguments.out}")
        print(f"next:  fewclip serve {arguments.out}")
    return 0


def demo_arguments(parser: Parser) -> None:
    parser.add_argument("--out", default="fewclip-demo", help="where data and models go")


def demo(arguments: Arguments) -> int:
    from fewclip.cli import demo

    demo.run(Path(arguments.out))
    return 0


def methods(arguments: Arguments) -> int:
    from fewclip.methods import describe, list_methods

    rows = [{"name": n, "description": describe(n)} for n in list_methods()]
    if arguments.json:
        _print_json(rows)
    else:
        for row in rows:
            print(f"{row['name']:<18} {row['description']}")
    return 0


def backbones(arguments: Arguments) -> int:
    from fewclip.backbone import list_backbones

    names = list_backbones()
    if arguments.json:
        _print_json([{"name": name} for name in names])
    else:
        print("\n".join(names))
    return 0


# ---- words to values -------------------------------------------------------------------------


def shots(text: str) -> Any:
    return text if text == "all" else _number(text)


def _number(text: str) -> Any:
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
            parts = [_number(part) for part in value.split(",")]
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
