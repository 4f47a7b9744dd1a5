"""Which class names and phrases are accepted, and what a phrase is by default."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence, Set

from fewclip.errors import ClassNameError

Phrases = Sequence[str] | Mapping[str, str]

MAX_NAME = 1000  # characters; CLIP reads 77 tokens, and cleaning takes at least linear time
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\xad\u200b\u2060\ufeff]")
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that render as blank
_ASCII_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def clean_label(label: str) -> str:
    """One spelling per label: macOS stores 'é' as two characters, others as one."""
    return unicodedata.normalize("NFC", label).strip()


def read_labels(names: Iterable[str]) -> list[str]:
    """Labels as they are stored, each once.

    Raises:
        ClassNameError: there is none, or one is not text, is invisible, or is given twice.
    """
    labels = distinct_labels(names)
    if not labels:
        raise ClassNameError("no class names were given, the list is empty; give at least one")
    return labels


def read_phrases(names: Phrases) -> dict[str, str]:
    """Labels, or {label: phrase} -> {label: phrase}; `_` in a label becomes a space.

    Raises:
        ClassNameError: as `read_labels` and `phrases_for`.
    """
    return phrases_for(*read_given(names))


def phrases_for(labels: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """label -> phrase: as given, else the label with `_` as a space.

    Raises:
        ClassNameError: a phrase is invisible, or CLIP cannot tell two of them apart.
    """
    phrases = {label: given.get(label, default_phrase(label)) for label in labels}
    check_distinct(phrases)
    return phrases


def check_distinct(phrases: Mapping[str, str], settled: Container[str] = ()) -> None:
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

    Case, white space, Unicode spelling and zero-width characters do not count.
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


def read_given(names: Phrases) -> tuple[list[str], dict[str, str]]:
    """Labels, and the phrases that were given for them."""
    labels = read_labels([names] if isinstance(names, str) else names)
    if not isinstance(names, Mapping):
        return labels, {}
    given = dict(zip(labels, names.values(), strict=True))
    for label, phrase in given.items():
        _check_phrase(label, phrase)
    return labels, given


def distinct_labels(names: Iterable[str]) -> list[str]:
    """Clean labels, none of them twice."""
    if isinstance(names, (str, bytes, Set)) or not isinstance(names, Iterable):
        raise ClassNameError(f"classes is {names!r}; give a list of labels or {{label: phrase}}")
    labels = [_label(name) for name in names]
    twice = [label for label, n in Counter(labels).items() if n > 1]
    if twice:
        raise ClassNameError(f"{listed(twice)} given twice; each class needs its own name")
    return labels


def _label(name: object) -> str:
    if not isinstance(name, str):
        raise ClassNameError(f"class name {name!r} is not text; give labels as text")
    _check_length(name)
    label = clean_label(name)
    if not _shows(label):
        raise ClassNameError(f"class name {name!r} is empty or invisible; give it letters")
    if any("\ud800" <= c <= "\udfff" for c in label):
        raise ClassNameError(f"class name {name!r} is not valid Unicode; rename it")
    return label


def _check_length(text: str) -> None:
    """Refuse a long text before anything is done to it: even cleaning it would be costly."""
    if len(text) > MAX_NAME:
        raise ClassNameError(
            f"{text[:40]!r}... has {len(text):,} characters, and a class name or phrase may have "
            f"at most {MAX_NAME:,}; shorten it"
        )


def _check_phrase(label: str, phrase: object) -> None:
    if isinstance(phrase, str):
        _check_length(phrase)
    if not isinstance(phrase, str) or not _shows(phrase):
        raise ClassNameError(f"class {label!r} has the phrase {phrase!r}; give it words")


def _shows(text: str) -> bool:
    """Whether anything in it is visible: a letter, a digit, punctuation or a symbol."""
    return any(unicodedata.category(c)[0] in "LNPS" and c not in _BLANK_LETTERS for c in text)


def default_phrase(label: str) -> str:
    """A label as one would say it."""
    return label.replace("_", " ")
