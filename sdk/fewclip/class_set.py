"""The one rule for class names and phrases, and editing a card's class set. No torch, no files.

A label is what an answer says; a phrase is what CLIP reads in the template's place for it.
Training, `zero_shot` and every edit of a trained or exported model read names here, so that what
one refuses no other accepts. Editing returns a new card; none changes the one it was given.

A class that was trained keeps its column of the trained head as long as its phrase stays: it may be
removed and added again, or go by another label meanwhile. No two classes have the same column.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence, Set

from fewclip.contract import Card
from fewclip.errors import ClassNameError

Phrases = Sequence[str] | Mapping[str, str]

MAX_NAME = 1000  # characters; CLIP reads 77 tokens, and mending a text takes its length and more
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\xad\u200b\u2060\ufeff]")
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that are drawn as nothing
_ASCII_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


# ---- names and phrases ---------------------------------------------------------------------------


def clean_label(label: str) -> str:
    """One spelling per label: macOS stores 'é' as two characters, others as one."""
    return unicodedata.normalize("NFC", label).strip()


def read_labels(names: Iterable[str]) -> list[str]:
    """Labels as they are stored, each once.

    Raises:
        ClassNameError: there is none, or one is no text, shows nothing, or is given twice.
    """
    labels = _labels(names)
    if not labels:
        raise ClassNameError("no class names were given, the list is empty; give at least one")
    return labels


def read_phrases(names: Phrases) -> dict[str, str]:
    """Labels, or {label: phrase} -> {label: phrase}; `_` in a label becomes a space.

    Raises:
        ClassNameError: as `read_labels` and `phrases_for`.
    """
    return phrases_for(*_read(names))


def phrases_for(labels: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """label -> phrase: as given, else the label with `_` as a space.

    Raises:
        ClassNameError: a phrase shows nothing, or CLIP cannot tell two of them apart.
    """
    phrases = {label: given.get(label, _default(label)) for label in labels}
    _check_distinct(phrases)
    return phrases


def _check_distinct(phrases: Mapping[str, str], settled: Container[str] = ()) -> None:
    """Refuse two phrases that CLIP cannot tell apart, unless both labels are `settled`."""
    taken: dict[str, str] = {}
    for label, phrase in phrases.items():
        _check_phrase(label, phrase)
        other = taken.setdefault(prompt_key(phrase), label)
        if other != label and not (label in settled and other in settled):
            raise ClassNameError(
                f"classes {other!r} and {label!r} would both be called {phrase!r}, and CLIP "
                "cannot tell them apart; give phrases with classes={label: phrase}"
            )


def prompt_key(phrase: str) -> str:
    """Equal for phrases that a person or CLIP's tokenizer cannot tell apart.

    Case, white space, Unicode spelling and characters of no width do not count.
    """
    text = _INVISIBLE.sub("", phrase)
    if text.isascii() and "&" not in text:  # nothing that the tokenizer would clean first
        return " ".join(_ASCII_WORDS.findall(text.lower()))
    from fewclip.tokenizer import words  # its import takes a while

    return " ".join(words(text))


def listed(names: Iterable[str], most: int = 10) -> str:
    """Names for a message, the first few of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def _read(names: Phrases) -> tuple[list[str], dict[str, str]]:
    """Labels, and the phrases that were given for them."""
    labels = read_labels([names] if isinstance(names, str) else names)
    if not isinstance(names, Mapping):
        return labels, {}
    given = dict(zip(labels, names.values(), strict=True))
    for label, phrase in given.items():
        _check_phrase(label, phrase)
    return labels, given


def _labels(names: Iterable[str]) -> list[str]:
    if isinstance(names, (str, bytes, Set)) or not isinstance(names, Iterable):
        raise ClassNameError(f"classes is {names!r}; give a list of labels or {{label: phrase}}")
    labels = [_label(name) for name in names]
    twice = [label for label, n in Counter(labels).items() if n > 1]
    if twice:
        raise ClassNameError(f"{listed(twice)} given twice; each class needs its own name")
    return labels


def _label(name: object) -> str:
    if not isinstance(name, str):
        raise ClassNameError(f"class name {name!r} is no text; give labels as text")
    _check_length(name)
    label = clean_label(name)
    if not _shows(label):
        raise ClassNameError(f"class name {name!r} is empty or invisible; give it letters")
    if any("\ud800" <= c <= "\udfff" for c in label):
        raise ClassNameError(f"class name {name!r} is no valid Unicode; rename it")
    return label


def _check_length(text: str) -> None:
    """Before anything is done to it: a long text costs more than its refusal."""
    if len(text) > MAX_NAME:
        raise ClassNameError(
            f"{text[:40]!r}... has {len(text):,} characters and at most {MAX_NAME:,} may stand in "
            "a class name or phrase; shorten it"
        )


def _check_phrase(label: str, phrase: object) -> None:
    if isinstance(phrase, str):
        _check_length(phrase)
    if not isinstance(phrase, str) or not _shows(phrase):
        raise ClassNameError(f"class {label!r} has the phrase {phrase!r}; give it words")


def _shows(text: str) -> bool:
    """Whether there is anything to see: a letter, a digit, punctuation or a symbol."""
    return any(unicodedata.category(c)[0] in "LNPS" and c not in _BLANK_LETTERS for c in text)


def _default(label: str) -> str:
    return label.replace("_", " ")


# ---- the class set of a card ---------------------------------------------------------------------


def with_classes(card: Card, names: Phrases) -> Card:
    """Exactly these classes, in this order.

    Args:
        names: labels, or {label: phrase}. Classes seen in training keep what they learned; others
            are known by their names alone.

    Raises:
        ClassNameError: as `read_phrases`.
    """
    labels, given = _read(names)
    current = _current(card)
    kept = {
        label: current[label]
        for label in labels
        if label in current and _same(given.get(label), current[label][0])
    }
    classes = _resolve(card, kept, labels, given)
    return _replace(card, {label: classes[label] for label in labels})


def add_classes(card: Card, names: Phrases) -> Card:
    """These classes besides those that are there.

    Raises:
        ClassNameError: as `read_phrases`, or one that is there already.
    """
    labels, given = _read(names)
    current = _current(card)
    again = [label for label in labels if label in current]
    if again:
        raise ClassNameError(f"already among the classes: {listed(again)}")
    return _replace(card, _resolve(card, current, labels, given))


def remove_classes(card: Card, names: str | Sequence[str]) -> Card:
    """The classes without these.

    Raises:
        ClassNameError: one that is not there, or none would be left.
    """
    gone = set(_known(card, [names] if isinstance(names, str) else names))
    kept = {label: entry for label, entry in _current(card).items() if label not in gone}
    if not kept:
        raise ClassNameError("no class would be left; keep at least one")
    return _replace(card, kept)


def rename_classes(card: Card, names: Mapping[str, str]) -> Card:
    """Other labels, {old: new}; phrases, and what was learned, stay as they are.

    Raises:
        ClassNameError: one that is not there, or two classes would share a label.
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

    A label of the training gets its column back, unless a kept class has it under another label.

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
            phrase, column = given.get(label, _default(label)), -1
        classes[label] = phrase, column
    # What the model has together already is not refused now: ImageNet has such pairs.
    settled = {label for label, (_, column) in classes.items() if column >= 0 or label in kept}
    _check_distinct({label: phrase for label, (phrase, _) in classes.items()}, settled)
    return classes


def _same(given: str | None, phrase: str) -> bool:
    """Whether a class keeps its phrase: none was given, or the same."""
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
    labels = _labels(names)
    classes = set(card.classes)
    unknown = [label for label in labels if label not in classes]
    if unknown:
        raise ClassNameError(
            f"not among the classes: {listed(unknown)}; there are: {listed(card.classes)}"
        )
    return labels
