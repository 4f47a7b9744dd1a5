"""Found images -> a verified pool with classes and phrases. It draws no sample.

Every image is decoded once, in threads, before any use. One that cannot be used is skipped and
reported. Pictures are compared by content (the decoded pixels), so a copy under another name
or in another lossless format is the same picture:

- twice in one class: used once;
- in two classes: left out of both, because nobody knows which is right;
- in train and in val or test: left out of train, so no training image is evaluated on
  (and out of val where it is in test).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image as PILImage

from fewclip.class_set import listed, phrases_for, read_labels
from fewclip.data.discovery import Data, scan
from fewclip.data.fixes import apply_fixes
from fewclip.data.found import Found, Skipped
from fewclip.errors import ClassNameError, DataError, ImageError
from fewclip.images import Image, decode, load_image
from fewclip.preprocess import WORKERS


@dataclasses.dataclass(frozen=True)
class Item:
    """One verified image.

    Attributes:
        image: what `preprocess.load_image` reads.
        label: index of its class.
        source: where it is, for people: "photos/cat/1.jpg", "cat[3]", "labels.csv row 7 (...)".
        content: sha256 of its decoded pixels; "" if it was not read by this module.
    """

    image: Image
    label: int
    source: str
    content: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """A data set in which every image can be decoded.

    Attributes:
        classes: labels with at least one image in `train`.
        phrases: label -> what one would say for it.
        train, val, test: images; val and test are None if the data set has no such split.
        skipped: what was found but is not used.
        notes: what a user should know about how the data was read.
    """

    classes: tuple[str, ...]
    phrases: dict[str, str]
    train: list[Item]
    val: list[Item] | None
    test: list[Item] | None
    skipped: list[Skipped]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class _Seen:
    found: Found
    content: str


def read(
    data: Data,
    *,
    classes: Sequence[str] | Mapping[str, str] | None = None,
    fixes: str | os.PathLike[str] | None = None,
) -> Pool:
    """Read and verify a data set in any of the five forms.

    Args:
        data: a folder of class folders, or of train/ (val/, test/) with class folders in each; a
            CSV with `image_path,label`; {label: [images]}; or [(image, label)].
        classes: a list keeps these labels only, in this order; {label: phrase} keeps all labels
            and says what to call them. The default phrase is the label, `_` read as a space.
        fixes: a CSV of images to leave out or relabel, as suggested by `fewclip check`.

    Raises:
        DataError: the data does not exist, is empty, or has fewer than two classes with a usable
            image.
        ClassNameError: `classes` names what the data does not have, or two classes would have the
            same prompt.
    """
    result = scan(data)
    if fixes is not None:
        apply_fixes(result, fixes)
    if result.divided and not result.labels:
        raise DataError(f"{result.name} has no train/ folder with class folders; add one")
    names = None if classes is None or isinstance(classes, Mapping) else read_labels(classes)
    given = {}
    if isinstance(classes, Mapping) and classes:
        given = dict(zip(read_labels(classes), classes.values(), strict=True))
    _check_known(names or given, result.labels)
    wanted = result.labels if names is None else set(names)
    skipped, notes = list(result.skipped), list(result.notes)
    if len(wanted) < len(result.labels):
        left = len(result.labels) - len(wanted)
        notes.append(
            f"{left} of the data's classes are left out because `classes` does not name them"
        )
    splits = {}
    for split, found in result.splits.items():
        skipped += _outside_classes(found, result.labels, f"that is in {split} and not in train")
        splits[split], unusable = _verify([each for each in found if each.label in wanted])
        skipped += unusable
    splits, repeated = _without_repeats(splits)
    skipped += repeated

    usable = {seen.found.label for seen in splits["train"]}
    for label in sorted(wanted - usable):
        skipped.append(Skipped(f"class {label!r}", "no usable image; the class is left out"))
    order = tuple(label for label in names or sorted(wanted) if label in usable)
    _check_enough(result.name, order, names, skipped)
    return Pool(
        classes=order,
        phrases=phrases_for(read_labels(order), given),
        train=_items(splits["train"], order),
        val=_items(splits["val"], order) if "val" in splits else None,
        test=_items(splits["test"], order) if "test" in splits else None,
        skipped=skipped,
        notes=notes,
    )


def read_labelled(
    data: Data, classes: Sequence[str], *, split: str = "test"
) -> tuple[list[Item], list[Skipped]]:
    """Read images whose labels are among `classes`, for evaluation; repeats are kept.

    Of a data set that is divided into train/, val/ and test/, only `split` is taken. Images of
    other classes are skipped and reported.

    Raises:
        DataError: there is no such split, or no usable image.
        ClassNameError: none of the labels is among `classes`.
    """
    result = scan(data)
    if result.divided and split not in result.splits:
        others = ", ".join(f"{name}/" for name, found in result.splits.items() if found)
        raise DataError(
            f"{result.name} is divided and has no {split}/ with class folders (it has {others}); "
            "name the folder whose sub-folders are the classes to use"
        )
    found = result.splits[split if result.divided else "train"]
    wanted = set(classes)
    known = [each for each in found if each.label in wanted]
    if found and not known:
        raise ClassNameError(
            f"{result.name} holds the labels {listed(sorted({f.label for f in found}))}, none of "
            f"which is among the classes {listed(classes)}; rename the labels or add the classes"
        )
    seen, unusable = _verify(known)
    outside = _outside_classes(found, wanted, "that is not among the model's")
    skipped = result.skipped + outside + unusable
    if not seen:
        raise DataError(f"{result.name} has no usable image{_first(skipped)}")
    return _items(seen, tuple(classes)), skipped


def content_hash(items: Iterable[Item]) -> str:
    """sha256 over contents and labels in order: the same for the same pictures anywhere."""
    digest = hashlib.sha256()
    for item in items:
        content = item.content or _content(load_image(item.image, name=item.source))
        digest.update(f"{content} {item.label}\n".encode())
    return digest.hexdigest()


def _verify(found: Sequence[Found]) -> tuple[list[_Seen], list[Skipped]]:
    """Decode everything once: what can be used with its content hash, the rest with reasons."""

    def look(each: Found) -> _Seen | Skipped:
        try:
            return _Seen(each, _content(decode(each.image)))
        except ImageError as error:
            return Skipped(each.source, str(error))

    with ThreadPoolExecutor(WORKERS) as pool:
        looked = list(pool.map(look, found))
    return (
        [each for each in looked if isinstance(each, _Seen)],
        [each for each in looked if isinstance(each, Skipped)],
    )


def _content(picture: PILImage.Image) -> str:
    digest = hashlib.sha256(f"{picture.width} {picture.height} ".encode())
    digest.update(picture.tobytes())
    return digest.hexdigest()


def _without_repeats(
    splits: Mapping[str, list[_Seen]],
) -> tuple[dict[str, list[_Seen]], list[Skipped]]:
    """Each picture once; a copy in val or test has precedence over one in train."""
    same: dict[str, list[tuple[str, _Seen]]] = defaultdict(list)
    for split in ("test", "val", "train"):
        for seen in splits.get(split, ()):
            same[seen.content].append((split, seen))
    kept: dict[str, list[_Seen]] = {split: [] for split in splits}
    skipped = []
    for copies in same.values():
        if len({seen.found.label for _, seen in copies}) > 1:
            skipped += [_in_two_classes(seen, copies) for _, seen in copies]
            continue
        (first_split, first), *others = copies
        kept[first_split].append(first)
        for split, seen in others:
            why = "used once" if split == first_split else f"left out of {split}"
            reason = f"the same picture as {first.found.source}; {why}"
            skipped.append(Skipped(seen.found.source, reason))
    return kept, skipped


def _in_two_classes(seen: _Seen, copies: Sequence[tuple[str, _Seen]]) -> Skipped:
    other = next(s.found for _, s in copies if s.found.label != seen.found.label)
    return Skipped(
        seen.found.source,
        f"the same picture as {other.source}, of class {other.label!r}; left out in both, delete "
        "the wrong one",
    )


def _items(seen: Iterable[_Seen], classes: Sequence[str]) -> list[Item]:
    index = {label: i for i, label in enumerate(classes)}
    return [
        Item(s.found.image, index[s.found.label], s.found.source, s.content)
        for s in seen
        if s.found.label in index  # else none of its images in train could be used
    ]


def _outside_classes(found: Iterable[Found], labels: Container[str], reason: str) -> list[Skipped]:
    """One entry for each class that is not among `labels`."""
    others = Counter(each.label for each in found if each.label not in labels)
    return [
        Skipped(f"class {label!r}", f"{n} images of a class {reason}")
        for label, n in sorted(others.items())
    ]


def _check_known(names: Iterable[str], labels: set[str]) -> None:
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise ClassNameError(
            f"classes names {listed(unknown)}, but the data holds {listed(sorted(labels))}; "
            "use the labels as they are there"
        )


def _check_enough(
    name: str, order: tuple[str, ...], asked: list[str] | None, skipped: list[Skipped]
) -> None:
    if asked is not None and len(order) < len(asked):
        empty = [label for label in asked if label not in order]
        raise DataError(f"{name} has no usable image of {listed(empty)}{_first(skipped)}")
    if len(order) < 2:
        have = f"only the class {order[0]!r}" if order else "no class"
        raise DataError(
            f"{name} has {have} with usable images, and at least two classes are needed to tell "
            f"apart; make one sub-folder or label per class{_first(skipped)}"
        )


def _first(skipped: Sequence[Skipped], most: int = 3) -> str:
    """The first things that were skipped, as the end of an error message."""
    if not skipped:
        return ""
    more = f"; and {len(skipped) - most} more" if len(skipped) > most else ""
    return " (skipped: " + "; ".join(f"{s.source}: {s.reason}" for s in skipped[:most]) + more + ")"
