"""The `fewclip` command: words in, one exit status out. Every verb imports what it needs itself.

Exit status: 0 done; 2 the user's input is at fault (one line on stderr); 1 our fault (a traceback);
130 stopped by Ctrl-C. With --json exactly one JSON document goes to stdout; all else to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewclip.errors import FewclipError, ImageError, InputError, MissingExtraError, StoppedError

Parser = argparse.ArgumentParser
Arguments = argparse.Namespace
CHUNK = 64  # images predicted at once


class Verb(NamedTuple):
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
        return VERBS[arguments.verb].run(arguments)
    except StoppedError as error:
        hint = " (--resume goes on from there)" if error.checkpoint else ""
        print(f"fewclip: {error}{hint}", file=sys.stderr)
        return 130
    except (InputError, MissingExtraError) as error:
        print(f"fewclip: {_one_line(str(error))}", file=sys.stderr)
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
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    named = next((word for word in words if not word.startswith("-")), None)
    for name, verb in VERBS.items():
        sub = verbs.add_parser(name, help=verb.help, description=verb.help)
        if name == named:
            verb.arguments(sub)
    return parser.parse_args(words)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _json_flag(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


# ---- adapt -----------------------------------------------------------------------------------


def _adapt_arguments(parser: Parser) -> None:
    parser.add_argument("data", help="a folder with one sub-folder per class, or a CSV")
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
    _json_flag(parser)


def _adapt(arguments: Arguments) -> int:
    from fewclip import adapting, artifact, checkpoint
    from fewclip.progress import to_stderr

    out = Path(arguments.out)
    kept = out.with_name(out.name + ".checkpoint")
    finished = arguments.resume and not arguments.overwrite and (out / "card.json").is_file()
    if not finished:
        artifact.check_target(out, overwrite=arguments.overwrite)
    if not arguments.resume:
        checkpoint.remove(kept)
    made = adapting.plan(
        arguments.data,
        method=arguments.method,
        backbone=arguments.backbone,
        shots=_shots(arguments.shots),
        classes=_classes(arguments.classes),
        template=arguments.template,
        val=_number(arguments.val),
        epochs=arguments.epochs,
        seed=arguments.seed,
        device=arguments.device,
        precision=arguments.precision,
        checkpoint=kept,
        **_settings(arguments.set),
    )
    print(made.split.describe(), file=sys.stderr, flush=True)
    if finished:
        card = artifact.read_card(out)
        if card.training.get("run_id") != made.run_id:
            raise InputError(
                f"{out} holds a model of another run; give another --out, or --overwrite"
            )
        print(f"{out} is finished already: the same data and settings", file=sys.stderr)
        _report_adapted(arguments, card)
        return 0
    clf = adapting.execute(made, progress=to_stderr())
    clf.save(out, overwrite=arguments.overwrite)
    checkpoint.remove(kept)
    _report_adapted(arguments, artifact.read_card(out, verify=False))
    return 0


def _report_adapted(arguments: Arguments, card: Any) -> None:
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


# ---- predict, evaluate, info -----------------------------------------------------------------


def open_model(path: str) -> Any:
    """A saved model or an exported folder; torch is imported for the former alone."""
    from fewclip import artifact

    if artifact.read_card(path, verify=False).kind == "onnx":
        from fewclip.runtime import OnnxClassifier

        return OnnxClassifier(path)
    from fewclip.classifier import load

    return load(path)


def _predict_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model or an exported folder")
    parser.add_argument("images", nargs="+", metavar="IMAGE|FOLDER|CSV")
    parser.add_argument("--top-k", type=int, default=5, help="how many classes to name")
    _json_flag(parser)


def _predict(arguments: Arguments) -> int:
    from fewclip.data import list_images

    images = list_images(arguments.images)
    model = open_model(arguments.model)
    rows: list[dict[str, Any]] = []
    for first in range(0, len(images), CHUNK):
        for row in _predict_chunk(model, images[first : first + CHUNK], arguments.top_k):
            rows.append(row)
            if not arguments.json and "error" not in row:
                top = "  ".join(f"{t['label']} {t['score']:.1%}" for t in row["top"])
                print(f"{row['image']}: {'' if row['known'] else '(unknown) '}{top}")
    failed = [row for row in rows if "error" in row]
    for row in failed:
        print(f"fewclip: {_one_line(row['error'])}", file=sys.stderr)
    if arguments.json:
        _print_json(rows)
    return 2 if failed else 0


def _predict_chunk(model: Any, images: list[str], top_k: int) -> list[dict[str, Any]]:
    """Rows in order; an unreadable image is a row with its error, and the others stay answered."""
    try:
        found = model.predict(images, top_k=top_k)
    except ImageError as error:
        if len(images) == 1:
            return [{"image": images[0], "error": str(error)}]
        return [row for image in images for row in _predict_chunk(model, [image], top_k)]
    return [{"image": i, **p.to_dict()} for i, p in zip(images, found, strict=True)]


def _evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model or an exported folder")
    parser.add_argument("data", help="labelled images, in any form that adapt takes")
    parser.add_argument("--out", help="write report.json and pictures into this folder")
    _json_flag(parser)


def _evaluate(arguments: Arguments) -> int:
    from fewclip.evaluation import evaluate

    report = evaluate(open_model(arguments.model), arguments.data)
    if arguments.out:
        report.save(arguments.out)
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(report)
    return 0


def _info_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model or an exported folder")
    _json_flag(parser)


def _info(arguments: Arguments) -> int:
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


def _add_classes_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--out", required=True, metavar="MODEL", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing MODEL")


def _add_classes(arguments: Arguments) -> int:
    from fewclip import artifact
    from fewclip.classifier import load

    artifact.check_target(arguments.out, overwrite=arguments.overwrite)
    clf = load(arguments.model).add_classes(arguments.names)
    clf.save(arguments.out, overwrite=arguments.overwrite)
    print(f"saved: {arguments.out} ({len(clf.classes)} classes)")
    return 0


def _export_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16", "int8"))
    parser.add_argument("--images", metavar="DATA", help="labelled images to prove parity on")
    parser.add_argument("--force", action="store_true", help="write it even if it differs")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing DIR")
    _json_flag(parser)


def _export(arguments: Arguments) -> int:
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


def _demo_arguments(parser: Parser) -> None:
    parser.add_argument("--out", default="fewclip-demo", help="where data and models go")


def _demo(arguments: Arguments) -> int:
    from fewclip import demo

    demo.run(Path(arguments.out))
    return 0


def _methods(arguments: Arguments) -> int:
    from fewclip import methods

    rows = [{"name": n, "description": methods.describe(n)} for n in methods.list_methods()]
    if arguments.json:
        _print_json(rows)
    else:
        for row in rows:
            print(f"{row['name']:<18} {row['description']}")
    return 0


def _backbones(arguments: Arguments) -> int:
    from fewclip.loading import list_backbones

    names = list_backbones()
    if arguments.json:
        _print_json([{"name": name} for name in names])
    else:
        print("\n".join(names))
    return 0


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
    from fewclip.compare import compare_arguments

    compare_arguments(parser)


def _compare(arguments: Arguments) -> int:
    from fewclip.compare import compare_command

    return compare_command(arguments)


def _bench_arguments(parser: Parser) -> None:
    from fewclip.bench.command import bench_arguments

    bench_arguments(parser)


def _bench(arguments: Arguments) -> int:
    from fewclip.bench.command import bench

    return bench(arguments)


VERBS = {
    "adapt": Verb("adapt CLIP to your images", _adapt_arguments, _adapt),
    "predict": Verb("classify images", _predict_arguments, _predict),
    "evaluate": Verb("measure a model on labelled images", _evaluate_arguments, _evaluate),
    "add-classes": Verb("add classes by name, no training", _add_classes_arguments, _add_classes),
    "export": Verb("write ONNX, proven to answer alike", _export_arguments, _export),
    "serve": Verb("serve an exported model over HTTP", _serve_arguments, _serve),
    "build": Verb("make a Bento with the model inside", _build_arguments, _build),
    "app": Verb("open the page: upload, adapt, classify", _app_arguments, _app),
    "compare": Verb("find the best method for your images", _compare_arguments, _compare),
    "bench": Verb("run the papers' protocols", _bench_arguments, _bench),
    "info": Verb("show a model's card", _info_arguments, _info),
    "demo": Verb("the main job on two bundled data sets", _demo_arguments, _demo),
    "methods": Verb("list the methods", _json_flag, _methods),
    "backbones": Verb("list the backbones", _json_flag, _backbones),
}


# ---- words to values -------------------------------------------------------------------------


def _shots(text: str) -> Any:
    return text if text == "all" else _number(text)


def _number(text: str) -> Any:
    """'16' -> 16, '0.2' -> 0.2, anything else stays a string."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
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


def _classes(text: str | None) -> Any:
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


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"fewclip: warning: {_one_line(str(message))}", file=sys.stderr)


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
        "sklearn": "dev",
    }
    return homes.get(module.split(".")[0])


if __name__ == "__main__":
    sys.exit(main())
