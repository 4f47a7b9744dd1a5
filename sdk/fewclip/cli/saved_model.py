"""Subcommands that take a saved model: evaluate, info, add-classes, export, push. No torch."""

from __future__ import annotations

from fewclip.cli.arguments import (
    Arguments,
    Parser,
    download_flag,
    json_flag,
    model_arguments,
    print_json,
)


def fetch_backbone(path: str) -> None:
    """Download the backbone that a saved model names into the local cache."""
    from fewclip import artifact
    from fewclip.hub import local_folder

    card = artifact.read_card(local_folder(path), verify=False)
    if card.kind == "model":
        from fewclip.backbone import load_backbone

        load_backbone(str(card.backbone["name"]))


def evaluate_arguments(parser: Parser) -> None:
    model_arguments(parser)
    parser.add_argument("data", help="labelled images, in any form that adapt takes")
    parser.add_argument("--out", help="write report.json and pictures into this folder")


def evaluate(arguments: Arguments) -> int:
    from fewclip.model_folder.opening import open_model

    report = open_model(arguments.model, allow_download=arguments.allow_download).evaluate(
        arguments.data
    )
    if arguments.out:
        report.save(arguments.out)
    if arguments.json:
        print_json(report.to_dict())
    else:
        print(report)
    return 0


def info_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model or an exported folder, or hf://owner/name")
    json_flag(parser)


def info(arguments: Arguments) -> int:
    from fewclip.artifact import read_card
    from fewclip.hub import local_folder

    card = read_card(local_folder(arguments.model))
    if arguments.json:
        print_json(card.to_dict())
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


def add_classes_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model, or hf://owner/name")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--out", required=True, metavar="MODEL", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing MODEL")
    download_flag(parser)


def add_classes(arguments: Arguments) -> int:
    from fewclip import artifact
    from fewclip.classifier import load

    artifact.check_target(arguments.out, overwrite=arguments.overwrite)
    clf = load(arguments.model, allow_download=arguments.allow_download).add_classes(
        arguments.names
    )
    clf.save(arguments.out, overwrite=arguments.overwrite)
    print(f"saved: {arguments.out} ({len(clf.classes)} classes)")
    return 0


def export_arguments(parser: Parser) -> None:
    parser.add_argument("model", help="a saved model, or hf://owner/name")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16", "int8"))
    parser.add_argument("--images", metavar="DATA", help="labelled images to prove parity on")
    parser.add_argument("--force", action="store_true", help="write it even if it differs")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing DIR")
    json_flag(parser)
    download_flag(parser)


def export(arguments: Arguments) -> int:
    from fewclip import artifact
    from fewclip.classifier import load

    artifact.check_target(arguments.out, overwrite=arguments.overwrite)
    report = load(arguments.model, allow_download=arguments.allow_download).export_onnx(
        arguments.out,
        arguments.precision,
        images=arguments.images,
        force=arguments.force,
        overwrite=arguments.overwrite,
    )
    if arguments.json:
        print_json(report.to_dict())
    else:
        print(report)
        print(f"saved: {arguments.out}")
        print(f"next:  fewclip serve {arguments.out}")
    return 0


def push_arguments(parser: Parser) -> None:
    model_arguments(parser)
    parser.add_argument(
        "repo", metavar="OWNER/NAME", help="where to, also as hf://owner/name; made if missing"
    )
    parser.add_argument("--private", action="store_true", help="of a repository that is made now")


def push(arguments: Arguments) -> int:
    from fewclip.model_folder.opening import open_model

    model = open_model(arguments.model, allow_download=arguments.allow_download)
    commit = model.push_to_hub(arguments.repo, private=arguments.private)
    repo = arguments.repo.removeprefix("hf://")
    if arguments.json:
        print_json({"repo": f"hf://{repo}", "commit": commit})
        return 0
    print(f"pushed: {commit}")
    print(f"next:   fewclip predict hf://{repo} IMAGE ...")
    return 0
