"""`fewclip.check(data)`: all findings of a data set, ranked; and the cheap part for `adapt`."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from fewclip.check.duplicates import near_duplicates
from fewclip.check.issue import KINDS, Issue
from fewclip.check.photos import Photo, measure, odd_photos
from fewclip.check.report import DataReport
from fewclip.data import Data, Found, Split, scan
from fewclip.errors import DataError, ImageError
from fewclip.images import decode
from fewclip.preprocess import WORKERS

if TYPE_CHECKING:
    import torch

UNEVEN = 4  # times as many images in the largest class as in the smallest
MOST_GLANCED = 1000  # images that the cheap part looks at
_COPY_ADVICE = {
    "leak": "leave it out, or you measure on what was learned",
    "conflict": "decide which class is right, and leave the other one out",
    "duplicate": "leave it out: it teaches nothing new",
}
_SPLIT_ORDER = ("test", "val", "train")  # which copy of a picture to keep


def check(
    data: Data,
    *,
    backbone: str | os.PathLike[str] = "micro",
    seed: int = 0,
    device: str | torch.device = "auto",
    thorough: bool = False,
) -> DataReport:
    """Look for faults in a data set: labels, copies, odd images, classes.

    Args:
        data: in any of the forms that `adapt` takes. Labels are checked in train/ alone, or in all
            images of a data set without splits; copies are looked for everywhere.
        backbone: whose features the labels are checked with.
        seed: of the folds.
        thorough: report every label that confident learning doubts too, not only those that are
            probably wrong.

    Raises:
        DataError: there is nothing, or not one readable image.
        MissingExtraError: `thorough`, and the 'check' extra is not installed.
    """
    found = scan(data)
    photos, issues = _measured(found.splits)
    if not photos:
        raise DataError(f"{found.name} has no readable image; see `fewclip check --help`")
    issues += copies(photos)
    issues += odd_photos(photos)
    counts = Counter(p.label for p in photos if p.split == "train")
    issues += _class_names(sorted(counts)) + _balance(counts)
    learned = [p for p in photos if p.split == "train"]
    if len(counts) > 1:
        issues += _doubts(learned, sorted(counts), backbone, seed, device, thorough)
    return _report(found.name, photos, issues)


def glance(split: Split) -> str:
    """What pixels alone show about the images that `adapt` uses, in one line; "" if all is well.

    Copies (except crops) and odd images, a few milliseconds per image; only the first
    `MOST_GLANCED` images are looked at.
    """
    found: dict[str, list[Found]] = defaultdict(list)
    items = [("train", i) for i in split.train] + [("val", i) for i in split.val]
    for name, item in items[:MOST_GLANCED]:
        found[name].append(Found(item.image, split.classes[item.label], item.source))
    photos, _ = _measured(found)
    report = _report("", photos, [*copies(photos, crops=False), *odd_photos(photos)])
    return f"look at: {report.summary()} (`fewclip check` shows them)" if report.issues else ""


def copies(photos: Sequence[Photo], *, crops: bool = True) -> list[Issue]:
    """One issue for each photo that shows the same as another; the better copy stays.

    The copy to keep is that of test/ before val/ before train/, then the larger one.
    """
    issues, gone = [], set()
    for pair in near_duplicates(photos, crops=crops):
        a, b = photos[pair.first], photos[pair.second]
        keep, drop = sorted((a, b), key=_worth)
        if drop.source in gone:
            continue
        kind = "duplicate"
        if keep.split != drop.split:
            kind = "leak"
        elif keep.label != drop.label:
            kind = "conflict"
        if kind != "conflict":
            gone.add(drop.source)
        issues.append(
            Issue(
                kind=kind,
                source=drop.source,
                label=drop.label,
                split=drop.split,
                score=pair.fit,
                reason=f"the same picture as {keep.source}"
                + (f" of class {keep.label!r}" if keep.label != drop.label else "")
                + f" ({pair.how})",
                advice=_COPY_ADVICE[kind],
                neighbours=(keep.source,),
                action="" if kind == "conflict" else "remove",
                image=drop.image,
            )
        )
    return issues


def _worth(photo: Photo) -> tuple[int, int, str]:
    return _SPLIT_ORDER.index(photo.split), -photo.size[0] * photo.size[1], photo.source


def _measured(splits: dict[str, list[Found]]) -> tuple[list[Photo], list[Issue]]:
    """Decode every image once, in threads: its measurements, or why it cannot be read."""

    def look(place: tuple[str, Found]) -> Photo | Issue:
        split, each = place
        try:
            pixels = decode(each.image)
        except ImageError as error:
            advice = "replace it or leave it out; adapt skips it"
            return Issue(
                kind="unreadable",
                source=each.source,
                label=each.label,
                split=split,
                score=1.0,
                reason=str(error),
                advice=advice,
            )
        content = hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()
        where = {"source": each.source, "label": each.label, "split": split}
        return measure(each.image, pixels, content=content, **where)

    with ThreadPoolExecutor(WORKERS) as pool:
        places = [(split, each) for split, found in splits.items() for each in found]
        seen = list(pool.map(look, places))
    photos = [each for each in seen if isinstance(each, Photo)]
    return photos, [each for each in seen if isinstance(each, Issue)]


def _doubts(
    photos: Sequence[Photo],
    classes: Sequence[str],
    backbone: str | os.PathLike[str],
    seed: int,
    device: str | torch.device,
    thorough: bool,
) -> list[Issue]:
    """Findings from features: wrong labels, images unlike their class, classes that overlap."""
    from fewclip.backbone import load_backbone, resolve_device
    from fewclip.check.labels import (
        doubt_labels,
        overlapping,
        tower_features,
        unlike_their_class,
        wrong_labels,
    )
    from fewclip.classifier import TEMPLATE

    tower = load_backbone(backbone, resolve_device(device))
    features = tower_features(tower, [p.image for p in photos])
    truth = np.array([classes.index(p.label) for p in photos])
    issues = list(unlike_their_class(photos, features, truth))
    noise = doubt_labels(features, truth, seed)
    if noise is None:
        return issues
    names = _name_features(tower, classes, TEMPLATE)
    wrong = list(wrong_labels(photos, features, noise, truth, classes, thorough=thorough))
    doubted = {issue.source for issue in wrong}
    issues = [issue for issue in issues if issue.source not in doubted]
    return [*wrong, *issues, *overlapping(noise.proba, truth, classes, names @ names.T)]


def _name_features(tower: object, classes: Sequence[str], template: str) -> np.ndarray:
    """(M, D) L2-normalised text features."""
    import torch

    from fewclip.backbone import Backbone

    assert isinstance(tower, Backbone)
    with torch.inference_mode():
        prompts = tower.tokenize([template.replace("{}", c.replace("_", " ")) for c in classes])
        text = tower.encode_text(prompts)
        unit: np.ndarray = torch.nn.functional.normalize(text, dim=-1).double().cpu().numpy()
    return unit


def _class_names(classes: Sequence[str]) -> list[Issue]:
    """Labels that differ only in case, accents, punctuation or a plural s."""
    spelled: dict[str, list[str]] = defaultdict(list)
    for label in classes:
        plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode() or label
        words = re.sub(r"[\W_]+", " ", plain.casefold()).split()
        singular = (w[:-1] if w.endswith("s") and len(w) > 3 else w for w in words)
        spelled[" ".join(singular)].append(label)
    return [
        Issue(
            kind="names",
            source=" / ".join(group),
            score=0.9,
            reason="these class names mean the same",
            advice="put their images into one class",
        )
        for group in spelled.values()
        if len(group) > 1
    ]


def _balance(counts: Counter[str]) -> list[Issue]:
    if not counts or max(counts.values()) < UNEVEN * min(counts.values()):
        return []
    (most, n_most), (least, n_least) = counts.most_common()[0], counts.most_common()[-1]
    return [
        Issue(
            kind="balance",
            source=least,
            score=0.5,
            reason=f"{n_least} images, while {most!r} has {n_most}",
            advice=f"add images of {least!r}",
        )
    ]


def _report(name: str, photos: Sequence[Photo], issues: Iterable[Issue]) -> DataReport:
    order = {kind: i for i, kind in enumerate(KINDS)}
    ranked = tuple(sorted(issues, key=lambda i: (order[i.kind], -i.score, i.source)))
    named = set(_named(ranked))
    images = {p.source: p.image for p in photos if p.source in named}
    return DataReport(name, Counter(p.label for p in photos), ranked, images)


def _named(issues: Iterable[Issue]) -> Iterator[str]:
    for issue in issues:
        yield issue.source
        yield from issue.neighbours
