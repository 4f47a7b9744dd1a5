"""`fewclip adapt`: images in, a saved model out; resumed where it stopped. No torch at import."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewclip.cli.arguments import (
    Arguments,
    Parser,
    adapt_settings,
    class_arguments,
    hardware_arguments,
    json_flag,
    number,
    print_json,
    settings,
)
from fewclip.contract import Card
from fewclip.errors import InputError, StoppedError


def adapt_arguments(parser: Parser) -> None:
    parser.add_argument(
        "data",
        help="a folder with one sub-folder per class, a CSV, Parquet, Arrow or a WebDataset .tar",
    )
    parser.add_argument("--out", required=True, metavar="MODEL", help="the folder to write")
    parser.add_argument("--method", default="auto", help="'auto', or see `fewclip methods`")
    parser.add_argument("--budget", type=float, help="seconds that 'auto' may take to choose")
    parser.add_argument(
        "--keep-best",
        action="store_true",
        help="Ctrl-C while 'auto' chooses: take the best head so far",
    )
    parser.add_argument(
        "--augment",
        choices=("published", "gentle", "none"),
        help="training crops: the papers', gentle ones without mirroring (the default on micro) "
        "for small parts and letters, or none ('auto' chooses)",
    )
    parser.add_argument("--shots", default="16", help="training images per class, or 'all'")
    parser.add_argument("--val", default="auto", help="'auto', a fraction, a folder, or 0")
    parser.add_argument("--backbone", default="micro", help="see `fewclip backbones`")
    class_arguments(parser, "a photo of a {}.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    hardware_arguments(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the method (`fewclip methods NAME` lists them); may be repeated",
    )
    parser.add_argument("--fixes", metavar="CSV", help="as `fewclip check --out` suggests them")
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
    from fewclip.selection.auto import choose_and_execute
    from fewclip.training import AdaptConfig, checkpoint, describe, make_plan
    from fewclip.training.progress import Callbacks, report_to_stderr, to_stderr

    config = AdaptConfig(
        method=arguments.method,
        budget=arguments.budget,
        keep_best=arguments.keep_best,
        val=number(arguments.val),
        epochs=arguments.epochs,
        checkpoint=kept if arguments.resume else None,
        fixes=arguments.fixes,
        options=_options(arguments),
        **adapt_settings(arguments),
    )
    plan = make_plan(arguments.data, config, report_progress=report_to_stderr)
    describe(plan)
    if config.shots != "all" and len(plan.split.val) + plan.split.unused > len(plan.split.train):
        print("hint: --shots all learns from more of these images", file=sys.stderr)
    if arguments.resume and not finished and not checkpoint.exists(kept):
        print(f"nothing to resume, no checkpoint in {kept}: starting over", file=sys.stderr)
    if finished:
        card = artifact.read_card(out)
        if card.training.get("run_id") != plan.run_id:
            raise InputError(
                f"{out} holds a model of another run; give another --out, or --overwrite"
            )
        checkpoint.remove(kept)  # left there if the run was killed between saving and this
        print(f"{out} is finished already: the same data and settings", file=sys.stderr)
        return card
    aside = None if arguments.resume else checkpoint.set_aside(kept)
    if aside is not None:
        print(
            f"a run was in progress in {kept}: kept as {aside.name} until this one is done "
            "(--resume would have continued it)",
            file=sys.stderr,
        )
    plan = dataclasses.replace(plan, checkpoint=kept)
    try:
        clf = choose_and_execute(
            plan, Callbacks(progress=to_stderr(), report_progress=report_to_stderr)
        )
    except KeyboardInterrupt:  # outside the training loop, which says so itself
        if not checkpoint.exists(kept):
            raise
        raise StoppedError(f"stopped; continue from {kept}", str(kept)) from None
    clf.save(out, overwrite=arguments.overwrite)
    checkpoint.remove(kept)
    return artifact.read_card(out, verify=False)


def _options(arguments: Arguments) -> dict[str, Any]:
    named = {} if arguments.augment is None else {"augment": arguments.augment}
    return {**named, **settings(arguments.set)}


def _report_adapted(arguments: Arguments, card: Card) -> None:
    if arguments.json:
        print_json(card.to_dict())
        return
    before, after = card.metrics.get("before"), card.metrics.get("after")
    if before and after:
        print(
            f"accuracy on {after['n']} images kept out of training: "
            f"{_with_interval(before)} before, {_with_interval(after)} after"
        )
        if gda := card.metrics.get("gda"):
            print(f"gda, for comparison, on the same images: {_with_interval(gda)}")
    elif found := card.metrics.get("out_of_fold"):
        print(f"accuracy on {found['n']} training images, out of fold: {_with_interval(found)}")
    else:
        print("no images were kept out of training: not measured, scores are uncalibrated")
    print(f"saved: {arguments.out}")
    print(f"next:  fewclip predict {arguments.out} IMAGE ...")
    print(f"       fewclip export {arguments.out} --out {arguments.out}-onnx")


def _with_interval(metrics: Mapping[str, Any]) -> str:
    """An accuracy with its confidence interval: so few images leave it uncertain."""
    from fewclip.report import wilson

    low, high = wilson(metrics["accuracy"], metrics["n"])
    return f"{metrics['accuracy']:.1%} ({100 * low:.0f} to {high:.0%})"
