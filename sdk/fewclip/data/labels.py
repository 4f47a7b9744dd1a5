"""Which classes there are, in which order, and what one would say for each. It sees no image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fewclip.data.discovery import clean
from fewclip.errors import ClassNameError


def names_in(classes: Sequence[str]) -> list[str]:
    """The labels of a `classes=` list, each once.

    Raises:
        ClassNameError: it is no list, empty, or names one twice.
    """
    if not isinstance(classes, (list, tuple)):
        raise ClassNameError(f"classes is {classes!r}; give a list of labels or {{label: phrase}}")
    names = [_spelled(name) for name in classes]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice or not names:
        what = f"names {listed(twice)} twice" if twice else "is empty"
        raise ClassNameError(f"classes {what}; name every label once")
    return names


def check_known(names: Iterable[str], labels: set[str]) -> None:
    """Refuse names that the data does not hold."""
    unknown = [name for name in names if _spelled(name) not in labels]
    if unknown:
        raise ClassNameError(
            f"classes names {listed(unknown)}, but the data holds {listed(sorted(labels))}; "
            "use the labels as they stand there"
        )


def phrases_for(classes: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """label -> what one would say: as given, else the label with `_` as a space.

    Raises:
        ClassNameError: a phrase has no words, or two classes have the same.
    """
    said = {_spelled(label): phrase for label, phrase in given.items()}
    phrases: dict[str, str] = {}
    taken: dict[str, str] = {}
    for label in classes:
        phrase = said.get(label, label.replace("_", " "))
        prompt = " ".join(phrase.lower().split()) if isinstance(phrase, str) else ""
        if not prompt:
            raise ClassNameError(f"class {label!r} has the phrase {phrase!r}; give it words")
        if prompt in taken:
            raise ClassNameError(
                f"classes {taken[prompt]!r} and {label!r} would both be called {prompt!r}, and "
                "CLIP cannot tell them apart; give phrases with classes={label: phrase}"
            )
        taken[prompt] = label
        phrases[label] = phrase
    return phrases


def listed(names: Iterable[str], most: int = 10) -> str:
    """Names for a message, the first few of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def _spelled(name: object) -> str:
    if not isinstance(name, str):
        raise ClassNameError(f"classes names {name!r}, no text; use the labels as text")
    return clean(name)
