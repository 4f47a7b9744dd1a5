"""`fewclip check`, `explain`, `suggest`: a look into data and model. No logic of their own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fewclip.cli.arguments import json_flag, model_arguments, one_line, print_json
from fewclip.errors import DataError, ImageError, OptionError

Parser = argparse.ArgumentParser
Arguments = argparse.Namespace


def check_arguments(parser: Parser) -> None:
    """Add the arguments of `check`."""
    parser.add_argument("data", help="a folder with one sub-folder per class, or a CSV")
    parser.add_argument("--out", metavar="DIR", help="write index.html, report.json and fixes.csv")
    parser.add_argument("--backbone", default="micro", help="see `fewclip backbones`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="'auto', 'cpu' or 'cuda'")
    parser.add_argument(
        "--thorough", action="store_true", help="list every doubtful label, also likely right ones"
    )
    json_flag(parser)


def check(arguments: Arguments) -> int:
    """Exit status 0 whatever was found."""
    from fewclip.check import check

    report = check(
        arguments.data,
        backbone=arguments.backbone,
        seed=arguments.seed,
        device=arguments.device,
        thorough=arguments.thorough,
    )
    page = report.save(arguments.out) if arguments.out else None
    if arguments.json:
        print_json(report.to_dict())
    else:
        print(report)
    if page is not None:
        print(f"saved: {page}", file=sys.stderr)
    return 0


def explain_arguments(parser: Parser) -> None:
    """Add the arguments of `explain`."""
    model_arguments(parser)
    parser.add_argument("image", help="a photo")
    parser.add_argument(
        "--out", required=True, metavar="PNG", help="write the photo under its heat map"
    )
    parser.add_argument(
        "--label", metavar="L", help="explain this class, also a new name; default: the answer"
    )
    parser.add_argument("--contrast", metavar="L", help="explain why the label rather than this")


def explain(arguments: Arguments) -> int:
    """Write the overlay; print which class it explains and which part matters most for it."""
    from fewclip.model_folder.opening import open_model

    out = Path(arguments.out)
    if out.suffix.lower() != ".png":
        raise OptionError(f"--out wants the name of a .png file, got {arguments.out!r}")
    if out.exists() and out.samefile(arguments.image):
        raise OptionError("--out names the photo itself; name another file")
    model = open_model(arguments.model, allow_download=arguments.allow_download)
    found = model.explain(arguments.image, arguments.label, arguments.contrast)
    out.parent.mkdir(parents=True, exist_ok=True)
    found.overlay().save(out)
    if arguments.json:
        print_json({"image": arguments.image, **found.to_dict(), "out": str(out)})
        return 0
    x, y = found.peak
    rather = f" rather than {found.contrast}" if found.contrast else ""
    print(
        f"{arguments.image}: {found.label} {found.score:.1%}{rather}, most of all around pixel "
        f"({x}, {y}), by {found.method}"
    )
    print(f"saved: {out}", file=sys.stderr)
    return 0


def suggest_arguments(parser: Parser) -> None:
    """Add the arguments of `suggest`."""
    model_arguments(parser)
    parser.add_argument("folder", help="a folder of unlabelled images, sub-folders included")
    parser.add_argument("--n", type=int, default=20, metavar="N", help="how many to name")


def suggest(arguments: Arguments) -> int:
    """Exit status 2 if no image can be read; single unreadable ones are left out."""
    from fewclip.model_folder.opening import open_model

    images = _images(Path(arguments.folder))
    model = open_model(arguments.model, allow_download=arguments.allow_download)
    try:
        found = model.suggest(images, arguments.n)
    except ImageError:
        found = model.suggest(_readable(images, arguments.folder), arguments.n)
    if arguments.json:
        print_json([each.to_dict() for each in found])
        return 0
    for row in (each.to_dict() for each in found):
        print(f"{row['score']:.2f}  {row['image']}: {row['reason']}")
    return 0


def _images(folder: Path) -> list[str]:
    """Files that look like images, in order."""
    from fewclip.bulk import sources
    from fewclip.bulk.resume import Pending

    sources.check([str(folder)])
    shards = sources.shards([str(folder)])
    return [record.name for shard in shards for record in Pending(shard).records()]


def _readable(images: Sequence[str], folder: str) -> list[str]:
    """Those that open; the reasons why others do not go to stderr.

    Raises:
        DataError: none does.
    """
    from fewclip.images import load_image

    found = []
    for image in images:
        try:
            load_image(image)
            found.append(image)
        except ImageError as error:
            print(f"fewclip: left out: {one_line(str(error))}", file=sys.stderr)
    if not found:
        raise DataError(f"{folder} has no readable image; give a folder of photos")
    return found
