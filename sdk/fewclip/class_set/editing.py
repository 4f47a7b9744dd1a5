"""Other classes for a trained or exported model: a new card; the given one is not changed.

A trained class keeps its column of the trained head as long as it keeps its phrase: it may be
removed and added again, or renamed, in between. No two classes have the same column.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from fewclip.class_set.names import (
    Phrases,
    check_distinct,
    default_phrase,
    distinct_labels,
    listed,
    read_given,
    read_labels,
)
from fewclip.contract import Card
from fewclip.errors import ClassNameError


def with_classes(card: Card, names: Phrases) -> Card:
    """Exactly these classes, in this order.

    Args:
        names: labels, or {label: phrase}. Classes seen in training keep what they learned; others
            are known by their names alone.

    Raises:
        ClassNameError: as `read_phrases`.
    """
    labels, given = read_given(names)
    current = _current(card)
    kept = {
        label: current[label]
        for label in labels
        if label in current and _same(given.get(label), current[label][0])
    }
    classes = _resolve(card, kept, labels, given)
    return _replace(card, {label: classes[label] for label in labels})


def add_classes(card: Card, names: Phrases) -> Card:
    """The current classes and these.

    Raises:
        ClassNameError: as `read_phrases`, or one of them is there already.
    """
    labels, given = read_given(names)
    current = _current(card)
    again = [label for label in labels if label in current]
    if again:
        raise ClassNameError(f"already among the classes: {listed(again)}")
    return _replace(card, _resolve(card, current, labels, given))


def remove_classes(card: Card, names: str | Sequence[str]) -> Card:
    """The current classes without these.

    Raises:
        ClassNameError: one of them is not there, or none would be left.
    """
    gone = set(_known(card, [names] if isinstance(names, str) else names))
    kept = {label: entry for label, entry in _current(card).items() if label not in gone}
    if not kept:
        raise ClassNameError("no class would be left; keep at least one")
    return _replace(card, kept)


def rename_classes(card: Card, names: Mapping[str, str]) -> Card:
    """Other labels, {old: new}; phrases, and what was learned, stay as they are.

    Raises:
        ClassNameError: an old one is not there, or two classes would share a label.
    """
    if not isinstance(names, Mapping):
        raise ClassNameError(f"new names were given as {names!r}; give {{old: new}}")
    new = dict(zip(_known(card, names), names.values(), strict=True))
    labels = read_labels([new.get(label, label) for label in card.classes])
    return _replace(card, dict(zip(labels, _current(card).values(), strict=True)))


def _resolve(
    card: Card,
    kept: Mapping[str, tuple[str, int]],
    labels: Sequence[str],
    given: Mapping[str, str],
) -> dict[str, tuple[str, int]]:
    """`kept` and then the other labels -> (phrase, column).

    A label from training gets its column back, unless a kept class has it under another label.

    Raises:
        ClassNameError: CLIP cannot tell two of the phrases apart.
    """
    seen: Mapping[str, str] = card.training.get("phrases", {})
    trained = {label: (phrase, column) for column, (label, phrase) in enumerate(seen.items())}
    taken = {column for _, column in kept.values()}
    classes = dict(kept)
    for label in labels:
        if label in kept:
            continue
        phrase, column = trained.get(label, ("", -1))
        if column < 0 or column in taken or not _same(given.get(label), phrase):
            phrase, column = given.get(label, default_phrase(label)), -1
        classes[label] = phrase, column
    # A pair that the model already has is not refused now: ImageNet has such pairs.
    settled = {label for label, (_, column) in classes.items() if column >= 0 or label in kept}
    check_distinct({label: phrase for label, (phrase, _) in classes.items()}, settled)
    return classes


def _same(given: str | None, phrase: str) -> bool:
    """Whether a class keeps its phrase: none was given, or the same one."""
    return given is None or given == phrase


def _current(card: Card) -> dict[str, tuple[str, int]]:
    """label -> (phrase, column)."""
    columns = zip(card.classes, card.head.columns, strict=True)
    return {label: (card.phrases[label], column) for label, column in columns}


def _replace(card: Card, classes: Mapping[str, tuple[str, int]]) -> Card:
    phrases = {label: phrase for label, (phrase, _) in classes.items()}
    head = dataclasses.replace(card.head, columns=tuple(column for _, column in classes.values()))
    return dataclasses.replace(card, classes=tuple(phrases), phrases=phrases, head=head)


def _known(card: Card, names: Iterable[str]) -> list[str]:
    """Labels that must be among the classes."""
    labels = distinct_labels(names)
    classes = set(card.classes)
    unknown = [label for label in labels if label not in classes]
    if unknown:
        raise ClassNameError(
            f"not among the classes: {listed(unknown)}; available: {listed(card.classes)}"
        )
    return labels
