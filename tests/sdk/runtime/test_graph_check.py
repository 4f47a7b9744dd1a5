"""Graphs, arrays and tokenizers that fewclip did not export are refused before they are opened."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewclip.errors import ArtifactError
from fewclip.runtime.arrays import unpack_arrays
from fewclip.runtime.graph_check import check_graph
from fewclip.tokenizer import Tokenizer
from tests.attacks import hostile_graphs as attack


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (attack.endless_loop, "graph within its graph"),
        (attack.tensor_out_of_nothing, "ConstantOfShape"),
        (attack.hidden_operator, "graph within its graph"),
        (attack.foreign_file, "/etc/passwd"),
    ],
)
def test_a_hostile_graph_is_refused(make: Callable[[], bytes], reason: str, tmp_path: Path) -> None:
    (tmp_path / "image.onnx").write_bytes(make())
    with pytest.raises(ArtifactError, match=reason):
        check_graph(tmp_path / "image.onnx", {"image.onnx"})


def test_a_file_of_the_folder_may_hold_tensors(tmp_path: Path) -> None:
    (tmp_path / "image.onnx").write_bytes(attack.foreign_file("image.onnx.data"))
    check_graph(tmp_path / "image.onnx", {"image.onnx.data"})


def test_every_cut_and_any_bytes_end_in_our_words(tmp_path: Path) -> None:
    whole = attack.foreign_file("image.onnx.data")
    rng = np.random.default_rng(0)
    wrong = [whole[:length] for length in range(len(whole))] + [rng.bytes(200) for _ in range(200)]
    for data in wrong:
        (tmp_path / "image.onnx").write_bytes(data)
        try:
            check_graph(tmp_path / "image.onnx", {"image.onnx.data"})
        except ArtifactError:
            continue


@pytest.mark.parametrize("make", [lambda: attack.npz_bomb(64 << 20), attack.npz_of_a_large_header])
def test_arrays_larger_than_their_file_are_refused(make: Callable[[], str]) -> None:
    text = make()
    tracemalloc.start()
    with pytest.raises((ArtifactError, ValueError)):
        unpack_arrays(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_of_a_tokenizer_only_the_merges_are_read(tmp_path: Path) -> None:
    ours = Tokenizer.from_open_clip()
    ours.save(tmp_path / "tokenizer.json")
    text = attack.tokenizer_of_endless_padding((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(text)
    again = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert again.ids("a photo of a dog") == ours.ids("a photo of a dog")
    (tmp_path / "tokenizer.json").write_text(text.replace('["t", "h"]', '["h", "t"]', 1))
    with pytest.raises(ArtifactError, match="not a CLIP tokenizer"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
