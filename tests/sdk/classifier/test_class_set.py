"""One rule for class names and phrases, wherever they come in; what a class learned stays its own.

On cards alone, without a model: `Classifier` and `OnnxClassifier` share these functions.
"""

from __future__ import annotations

import random
import string
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

import fewclip
from fewclip.class_set import (
    add_classes,
    prompt_key,
    read_phrases,
    remove_classes,
    rename_classes,
    with_classes,
)
from fewclip.contract import Calibration, Card, HeadSpec, Preprocess
from fewclip.data import read
from fewclip.errors import ClassNameError
from fewclip.tokenizer import Tokenizer, words

PHRASES = {"cat": "cat", "dog": "a dog", "NG_02": "a scratched plate"}


def card(phrases: dict[str, str] = PHRASES) -> Card:
    """Of a model that was trained on all of `phrases`."""
    return Card(
        kind="model",
        name="pets",
        classes=tuple(phrases),
        phrases=phrases,
        template="a photo of a {}.",
        preprocessing=Preprocess(size=64, mean=(0, 0, 0), std=(1, 1, 1)),
        method="kgcoop+dept",
        options={},
        backbone={"name": "micro"},
        head=HeadSpec(logit_scale=100.0, columns=tuple(range(len(phrases))), dept_weight=0.7),
        calibration=Calibration(),
        seed=0,
        precision="fp32",
        training={"phrases": phrases},
    )


def columns(card: Card) -> dict[str, int]:
    return dict(zip(card.classes, card.head.columns, strict=True))


def adapted(names: Any) -> object:
    """What `adapt` does with names; each is a class with one image."""
    labels = [names] if isinstance(names, str) else list(names)
    images = [(Image.new("RGB", (4, 4), (40 * i, 9, 9)), name) for i, name in enumerate(labels)]
    return read(images, classes=names if isinstance(names, dict) else None)


# What takes names, besides what is there already.
TAKE: dict[str, Callable[[Any], object]] = {
    "add_classes": lambda names: add_classes(card(), names),
    "with_classes": lambda names: with_classes(card(), names),
    "zero_shot": read_phrases,
    "rename": lambda names: rename_classes(card(), dict(zip(PHRASES, names, strict=False))),
}

REFUSED: dict[str, Any] = {
    "empty": ["zebra", ""],
    "white space": ["zebra", " \t "],
    "NUL": ["zebra", "\0"],
    "no width": ["zebra", "\u200b"],
    "byte order mark": ["zebra", "\ufeff"],
    "a filler": ["zebra", "\u3164"],
    "an accent alone": ["zebra", "\u0301"],
    "half a character": ["zebra", "a\ud800"],
    "a number": ["zebra", 3],
    "None": ["zebra", None],
    "twice": ["zebra", "zebra"],
    "twice but for space": ["zebra", " zebra "],
    "composed and apart": ["caf\u00e9", "cafe\u0301"],
}
ALIKE: dict[str, Any] = {
    "case": ["Zebra", "zebra"],
    "underscore": ["sea_lion", "Sea lion"],
    "inner space": ["sea lion", "sea  lion"],
    "no width within": ["zebra", "ze\u200bbra"],
    "what the tokenizer splits": ["no. 1", "no . 1"],
    "quotes": ["\u201czebra\u201d", '"zebra"'],
    "a blank phrase": {"zebra": " "},
    "an invisible phrase": {"zebra": "\u200b"},
    "a phrase that is none": {"zebra": None},
    "one phrase for two": {"lion": "a big cat", "tiger": "A big  cat"},
}


@pytest.mark.parametrize("names", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("take", TAKE.values(), ids=TAKE)
def test_names_that_cannot_be_are_refused(take: Callable[[Any], object], names: Any) -> None:
    with pytest.raises(ClassNameError):
        take(names)


@pytest.mark.parametrize("names", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("which", ["add_classes", "with_classes", "zero_shot"])
def test_phrases_that_clip_cannot_tell_apart_are_refused(which: str, names: Any) -> None:
    with pytest.raises(ClassNameError):
        TAKE[which](names)


@pytest.mark.parametrize(
    "names",
    [
        *(ALIKE[k] for k in ("case", "underscore", "inner space", "no width within", "quotes")),
        ["zebra", "\u200b"],
        {"zebra": " ", "lion": "lion"},
        {"lion": "a big cat", "tiger": "A big  cat"},
    ],
)
def test_training_refuses_the_same_names(names: Any) -> None:
    with pytest.raises(ClassNameError):
        adapted(names)


@pytest.mark.parametrize("names", [None, 3, {"a", "b"}, b"cat", []])
def test_what_is_no_list_of_names_is_refused(names: Any) -> None:
    for which in ("add_classes", "with_classes", "zero_shot"):
        with pytest.raises(ClassNameError):
            TAKE[which](names)


def test_an_added_class_must_differ_from_those_that_are_there() -> None:
    with pytest.raises(ClassNameError, match="'cat' and 'Cat' would both be called"):
        add_classes(card(), ["Cat"])
    with pytest.raises(ClassNameError, match="already among the classes: 'cat'"):
        add_classes(card(), [" cat"])
    with pytest.raises(ClassNameError, match="tell them apart"):
        add_classes(card(), {"hound": "A dog"})
    with pytest.raises(ClassNameError, match="tell them apart"):
        with_classes(card(), ["cat", "Cat"])
    assert add_classes(card(), {"Cat": "a tom cat"}).classes[-1] == "Cat"


def test_labels_are_stored_in_one_spelling() -> None:
    assert read_phrases([" cafe\u0301 ", "sea_lion"]) == {
        "caf\u00e9": "caf\u00e9",
        "sea_lion": "sea lion",
    }
    assert read_phrases("zebra") == {"zebra": "zebra"}


# ---- trained columns -----------------------------------------------------------------------------


def test_a_class_removed_and_added_again_has_its_column_back() -> None:
    less = remove_classes(card(), ["NG_02", "dog"])
    again = add_classes(less, ["NG_02", "zebra", "dog"])
    assert columns(again) == {"cat": 0, "NG_02": 2, "zebra": -1, "dog": 1}
    assert again.phrases["NG_02"] == "a scratched plate"
    assert columns(add_classes(less, {"dog": "a dog"}))["dog"] == 1
    assert columns(add_classes(less, {"dog": "a puppy"}))["dog"] == -1
    assert columns(with_classes(less, ["dog", "cat"])) == {"dog": 1, "cat": 0}


def test_a_renamed_class_keeps_its_column_and_nobody_else_gets_it() -> None:
    renamed = rename_classes(remove_classes(card(), "dog"), {"cat": "dog"})
    assert columns(renamed) == {"dog": 0, "NG_02": 2}
    with pytest.raises(ClassNameError, match="'dog' and 'cat' would both be called 'cat'"):
        with_classes(renamed, ["dog", "cat"])
    told = with_classes(renamed, {"dog": "a dog", "cat": "cat"})
    assert columns(told) == {"dog": 1, "cat": 0}
    other = add_classes(renamed, {"cat": "a tabby"})
    assert columns(other) == {"dog": 0, "NG_02": 2, "cat": -1}


def test_labels_may_be_exchanged() -> None:
    swapped = rename_classes(card(), {"cat": "dog", "dog": "cat"})
    assert columns(swapped) == {"dog": 0, "cat": 1, "NG_02": 2}
    assert swapped.phrases == {"dog": "cat", "cat": "a dog", "NG_02": "a scratched plate"}


def test_no_chain_of_edits_gives_two_classes_one_column() -> None:
    rng = random.Random(0)
    names = ["cat", "dog", "NG_02", "zebra", "bus"]
    for _ in range(300):
        edited = card()
        for _ in range(6):
            some = rng.sample(names, rng.randint(1, 3))
            edit = rng.choice([add_classes, with_classes, remove_classes, rename_classes])
            try:
                if edit is rename_classes:
                    edited = rename_classes(edited, {some[0]: some[-1]})
                else:
                    edited = edit(edited, some)  # type: ignore[operator]
            except ClassNameError:
                continue
            own = [column for column in edited.head.columns if column >= 0]
            assert len(own) == len(set(own)), edited
            assert len({prompt_key(p) for p in edited.phrases.values()}) == len(edited.classes)


# ---- the key, and its cost -----------------------------------------------------------------------


def test_equal_keys_are_equal_tokens() -> None:
    tokenizer = Tokenizer.from_open_clip()
    rng = random.Random(1)
    letters = "aB1 .'_-!" + "\u00e9\u72ac\u00b2"
    texts = ["".join(rng.choices(letters, k=rng.randint(1, 5))) for _ in range(3000)]
    by_key: dict[str, list[int]] = {}
    keys: dict[tuple[int, ...], str] = {}
    for text in texts:
        ids = tokenizer.ids(text)
        assert by_key.setdefault(prompt_key(text), ids) == ids, text
        assert keys.setdefault(tuple(ids), prompt_key(text)) == prompt_key(text), text


def test_plain_text_has_the_key_that_the_tokenizer_would_give() -> None:
    rng = random.Random(2)
    for _ in range(2000):
        text = "".join(rng.choices(string.printable.replace("&", ""), k=rng.randint(1, 12)))
        assert prompt_key(text) == " ".join(words(text)), repr(text)
    apart = unicodedata.normalize("NFD", "caf\u00e9")
    assert prompt_key(apart) == prompt_key("caf\u00e9")


def test_editing_reads_each_of_twenty_thousand_names_at_most_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []

    def spy(phrase: str) -> str:
        read.append(phrase)
        return prompt_key(phrase)

    monkeypatch.setattr("fewclip.class_set.names.prompt_key", spy)
    names = {f"class_{i}": f"thing number {i}" for i in range(20_000)}
    big = with_classes(card(), names)
    big = add_classes(big, ["one more"])
    big = remove_classes(big, list(names)[1:])
    big = add_classes(big, list(names)[1:])
    rename_classes(big, {name: f"new {name}" for name in names})
    assert len(big.classes) == 20_001
    assert len(names) <= len(read) <= 5 * len(big.classes)


def test_zero_shot_reads_names_by_the_rule() -> None:
    with pytest.raises(ClassNameError, match="tell them apart"):
        fewclip.zero_shot(["cat", "Cat"])
