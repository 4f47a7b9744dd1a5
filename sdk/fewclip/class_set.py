"""Editing a card's class set: labels, phrases and head columns. No torch, no features, no files.

A trained model and its export take new classes by the same rules, because the rules are here.
Every function returns a new card; none changes the one it was given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from fewclip.contract import Card
from fewclip.errors import ClassNameError

Phrases = Sequence[str] | Mapping[str, str]


def read_phrases(names: Phrases) -> dict[str, str]:
    """Labels, or {label: phrase} -> {label: phrase}; `_` in a label becomes a space.

    Raises:
        ClassNameError: no names, an empty or a doubled one.
    """
    if isinstance(names, str):
        names = [names]
    labels = [str(name) for name in names]
    if not labels:
        raise ClassNameError("no class names were given; give at least one")
    if any(not label.strip() for label in labels):
        raise ClassNameError(f"a class name is empty: {labels!r}")
    doubled = sorted({label for label in labels if labels.count(label) > 1})
    if doubled:
        raise ClassNameError(f"given twice: {', '.join(doubled)}; each class needs its own name")
    given = names if isinstance(names, Mapping) else {}
    return {label: str(given.get(label) or label.replace("_", " ")) for label in labels}


def with_classes(card: Card, names: Phrases) -> Card:
    """Exactly these classes, in this order.

    Args:
        names: labels, or {label: phrase}. Classes seen in training keep what they learned; others
            are told by their names alone.

    Raises:
        ClassNameError: no name, an empty or a doubled one.
    """
    told = names if isinstance(names, Mapping) else {}
    seen: Mapping[str, str] = card.training.get("phrases", {})
    known = {label: (phrase, column) for column, (label, phrase) in enumerate(seen.items())}
    for label, column in zip(card.classes, card.head.columns, strict=True):
        known[label] = (card.phrases[label], column)
    phrases, columns = {}, []
    for label, phrase in read_phrases(names).items():
        old, column = known.get(label, (phrase, -1))
        same = label not in told or phrase == old
        phrases[label] = old if same else phrase
        columns.append(column if same else -1)
    return _replace(card, phrases, columns)


def add_classes(card: Card, names: Phrases) -> Card:
    """These classes besides those that are there.

    Raises:
        ClassNameError: no name, an empty or doubled one, or one that is there already.
    """
    new = read_phrases(names)
    doubled = [label for label in new if label in card.classes]
    if doubled:
        raise ClassNameError(f"already among the classes: {', '.join(doubled)}")
    phrases = {label: card.phrases[label] for label in card.classes} | new
    return _replace(card, phrases, [*card.head.columns, *(-1 for _ in new)])


def remove_classes(card: Card, names: str | Sequence[str]) -> Card:
    """The classes without these.

    Raises:
        ClassNameError: one that is not there, or none would be left.
    """
    gone = [names] if isinstance(names, str) else list(names)
    _check_known(card, gone)
    kept = [i for i, label in enumerate(card.classes) if label not in gone]
    if not kept:
        raise ClassNameError("no class would be left; keep at least one")
    phrases = {card.classes[i]: card.phrases[card.classes[i]] for i in kept}
    return _replace(card, phrases, [card.head.columns[i] for i in kept])


def rename_classes(card: Card, names: Mapping[str, str]) -> Card:
    """Other labels, {old: new}; phrases, and what was learned, stay as they are.

    Raises:
        ClassNameError: one that is not there, or two classes would share a label.
    """
    _check_known(card, list(names))
    labels = [names.get(label, label) for label in card.classes]
    read_phrases(labels)
    phrases = {new: card.phrases[old] for old, new in zip(card.classes, labels, strict=True)}
    return _replace(card, phrases, list(card.head.columns))


def _replace(card: Card, phrases: Mapping[str, str], columns: Sequence[int]) -> Card:
    head = dataclasses.replace(card.head, columns=tuple(columns))
    return dataclasses.replace(card, classes=tuple(phrases), phrases=dict(phrases), head=head)


def _check_known(card: Card, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in card.classes]
    if unknown:
        raise ClassNameError(
            f"not among the classes: {', '.join(unknown)}; there are: {', '.join(card.classes)}"
        )
