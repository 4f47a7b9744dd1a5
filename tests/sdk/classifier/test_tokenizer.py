"""The tokenizer equals open_clip's, never cuts, and needs neither torch nor open_clip to run."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewclip.errors import ArtifactError, ClassNameError
from fewclip.tokenizer import END, START, Tokenizer

NAMES = [
    "a photo of a golden retriever.",
    "X X X X golden retriever.",
    "don't we'll I'VE you're he'D it's 'S 'ſ rock'n'roll",
    "Boeing 737-800",
    "1234567890 ½ ² Ⅷ",
    "naïve café, São Paulo, Łódź, Åland, ÇA VA, straße",
    "İstanbul ΟΔΥΣΣΕΥΣ",
    "собака 犬 강아지 كلب कुत्ता ไทย",
    "👩‍👩‍👧‍👦 family 🐶🏳️‍🌈",
    "a&amp;amp;lt;b &lt;br&gt; &eacute;",
    "â€œquotedâ€\x9d schÃ¶n",
    "ﬁne ＦＵＬＬ ｗｉｄｔｈ",
    "  tab\tnew\nline  \u00a0nbsp \u3000wide ",
    "snake_case-and/slash\\back.dot,comma;semi:colon!?",
    "e\u0301 combining",
    "zero\u200bwidth\u200djoiner",
    "!!!",
    "",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_open_clip()


@functools.cache
def open_clip_tokenizer() -> Any:
    import open_clip

    return open_clip.get_tokenizer("ViT-B-32")


def reference(texts: list[str], context: int) -> np.ndarray:
    rows: np.ndarray = open_clip_tokenizer()(texts, context).numpy()
    return rows


def test_equal_to_open_clip_on_many_kinds_of_names(tokenizer: Tokenizer) -> None:
    rows = tokenizer.encode(NAMES, 77)
    assert rows.shape == (len(NAMES), 77)
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, reference(NAMES, 77))


def comparable(text: str) -> bool:
    """No control tokens, which are a deviation, and only characters that both regex engines'
    versions of Unicode know."""
    known = all(unicodedata.category(c) not in {"Cn", "Cs", "Co"} for c in text)
    return known and START not in text.lower() and END not in text.lower()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=30).filter(comparable))
def test_equal_to_open_clip_on_any_text(text: str) -> None:
    expected = reference([text], 512)
    np.testing.assert_array_equal(Tokenizer.from_open_clip().encode([text], 512), expected)


def test_rows_hold_start_text_end_and_zeros(tokenizer: Tokenizer) -> None:
    row = tokenizer.encode(["cat"], 6)[0]
    assert row.tolist() == [49406, 2368, 49407, 0, 0, 0]
    assert (tokenizer.start, tokenizer.end) == (49406, 49407)
    assert tokenizer.encode([], 6).shape == (0, 6)


def test_frequent_words_are_the_first_whole_ones(tokenizer: Tokenizer) -> None:
    words = tokenizer.frequent_words(256)
    assert words[:3] == ["this", "with", "from"]
    assert len(set(words)) == 256
    assert min(map(len, words)) == 4
    assert all(len(tokenizer.ids(word)) == 1 for word in words)


def test_a_text_that_just_fits_and_one_that_does_not(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(["cat cat cat"], 5)[0].tolist() == [49406, 2368, 2368, 2368, 49407]
    with pytest.raises(ClassNameError, match=r"'cat cat cat cat' takes 6 tokens .* reads 5"):
        tokenizer.encode(["dog", "cat cat cat cat"], 5)


def test_a_very_long_text_is_named_in_short(tokenizer: Tokenizer) -> None:
    with pytest.raises(ClassNameError, match=r"\(30000 characters\)") as caught:
        tokenizer.encode(["word, " * 5000], 77)
    assert len(str(caught.value)) < 400


def test_control_tokens_in_a_name_are_ordinary_text(tokenizer: Tokenizer) -> None:
    row = tokenizer.encode([f"a {END} b"], 32)[0]
    assert (row == tokenizer.end).sum() == 1
    assert int(row.argmax()) == np.flatnonzero(row)[-1]


def test_a_file_name_that_is_not_utf8_still_has_tokens(tokenizer: Tokenizer) -> None:
    """Python reads such names as lone surrogates, which cannot be encoded as they are."""
    np.testing.assert_array_equal(tokenizer.encode(["caf\udce9"], 32), reference(["caf\udce9"], 32))


def test_saved_and_read_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.from_file(tmp_path / "tokenizer.json")
    np.testing.assert_array_equal(again.encode(NAMES, 77), tokenizer.encode(NAMES, 77))


def test_the_file_stands_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Another program with the tokenizers library gets the same ids from the file."""
    import tokenizers

    tokenizer.save(tmp_path / "tokenizer.json")
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "A photo of a Golden  retriever."
    assert plain.encode(text).ids == [t for t in tokenizer.encode([text], 77)[0] if t]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": "1.0"}', "no json"])
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ArtifactError, match="is not a tokenizer"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    with pytest.raises(ArtifactError, match="is not a tokenizer"):
        Tokenizer.from_file(tmp_path / "nothing.json")


def test_a_tokenizer_of_another_family_is_refused(tmp_path: Path) -> None:
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "other.json"))
    with pytest.raises(ArtifactError, match="not a CLIP tokenizer"):
        Tokenizer.from_file(tmp_path / "other.json")


def test_building_it_imports_neither_torch_nor_open_clip() -> None:
    code = (
        "import sys, json; from fewclip.tokenizer import Tokenizer;"
        "ids = Tokenizer.from_open_clip().ids('cat');"
        "print(json.dumps([ids, [m for m in ('torch', 'open_clip') if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[2368], []]
