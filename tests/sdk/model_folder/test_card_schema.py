"""Whatever a card says, it is read or refused by name; nothing else ever comes out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from forged_cards import changed, resign

import fewclip
from fewclip.artifact import CARD_DIGEST, read_card
from fewclip.cli import main
from fewclip.contract import Card
from fewclip.errors import ArtifactError, FewclipError
from fewclip.model_folder import card_schema
from fewclip.model_folder.readme import model_card

ODD = [
    None, True, 0, -1, 2**70, 0.0, -1.5, 1e300, math.nan, math.inf, "", "x", "{}", "\ud800",
    "é\n\x1b", [], [None], [[0]], {}, {"x": None}, {"": [1]},
]  # fmt: skip


class Facts(TypedDict):
    n: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    side: int
    pair: tuple[float, float]
    names: tuple[str, ...] = ()
    maybe: float | None = None
    facts: Annotated[Mapping[str, Any], Facts] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ArtifactError("side must be 1 or more")


GOOD: dict[str, Any] = {
    "side": 2,
    "pair": [1, 2.5],
    "facts": {"n": 1, "more": [None]},
    "counts": {"a": [1]},
}


def test_a_dataclass_is_read_by_its_own_annotations() -> None:
    found = card_schema.read(Example, GOOD, "card")
    assert found == Example(side=2, pair=(1.0, 2.5), facts=GOOD["facts"], counts={"a": [1]})
    assert [type(x) for x in found.pair] == [float, float]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"side": "x"}, "card.side must be a whole number, not 'x'"),
        ({"side": True}, "card.side must be a whole number, not True"),
        ({"side": 2**80}, "card.side must be a whole number below"),
        ({"side": 0}, "side must be 1 or more"),
        ({"pair": [1]}, "card.pair must be a list of 2"),
        ({"pair": [1, math.nan]}, r"card.pair\[1\] must be a finite number"),
        ({"pair": [1, None]}, r"card.pair\[1\] must be a number, not None"),
        ({"names": ["a", 1]}, r"card.names\[1\] must be text"),
        ({"names": ["\udcff"]}, r"valid Unicode, not '\\udcff'"),
        ({"maybe": "x"}, "card.maybe must be a number"),
        ({"facts": {}}, "card.facts lacks 'n'"),
        ({"facts": None}, "card.facts must be an object"),
        ({"counts": {"a": [1, "x"]}}, r"card.counts.a\[1\] must be a whole number"),
        ({"other": 1}, "card has other, which this fewclip does not know"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ArtifactError, match=says) as caught:
        card_schema.read(Example, {**GOOD, **change}, "card")
    assert len(str(caught.value).splitlines()) == 1


def test_nesting_is_bounded() -> None:
    deep: Any = 0
    for _ in range(500):
        deep = [deep]
    with pytest.raises(ArtifactError, match="nested more than"):
        card_schema.read(Example, {**GOOD, "facts": {"n": 1, "deep": deep}}, "card")


# ---- a real card -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tuned_dept: fewclip.Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "m"
    tuned_dept.save(folder)
    return folder


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within a JSON document, containers too."""
    if path:
        yield path
    if isinstance(value, (dict, list)):
        parts: Any = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from leaves(part, (*path, key))


def use(card: Card) -> None:
    """What reads a card without its weights: all of it must work, or refuse by name."""
    from fewclip import class_set
    from fewclip.methods import registry

    model_card(card)
    json.dumps(card.to_dict(), allow_nan=False)
    class_set.add_classes(card, ["zebra"])
    class_set.with_classes(card, ["one", "zebra"])
    registry.make_options(card.method, card.options)


def test_every_mutated_card_is_refused_by_name_or_valid(model: Path) -> None:
    plain = json.loads((model / "card.json").read_text())
    del plain[CARD_DIGEST]
    plain["data"]["validation_files"] = [{"path": "a.png", "label": "one", "sha256": "0"}]
    figures = {"accuracy": 0.5, "macro_f1": None, "ece": 0.1, "n": 4}
    plain["metrics"] = {"before": figures, "after": figures}
    use(Card.from_dict(plain))
    refusals: list[str] = []
    paths = list(leaves(plain))
    for path in paths:
        for value in ODD:
            try:
                use(Card.from_dict(changed(plain, path, value)))
            except FewclipError as error:
                refusals.append(str(error))
    assert len(paths) * len(ODD) > 1000
    assert len(refusals) > len(paths) * len(ODD) / 2
    assert max(map(len, refusals)) < 1000


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("files", "model.safetensors"), None),
        (("phrases",), None),
        (("training",), None),
        (("training", "phrases"), None),
        (("calibration", "n"), "x"),
        (("calibration", "temperature"), 0),
        (("calibration", "temperature"), -1),
        (("calibration", "temperature"), math.nan),
        (("preprocessing", "size"), "x"),
        (("preprocessing", "size"), 10**9),
        (("template",), "a photo"),
        (("options", "n_ctx"), 10**9),
        (("backbone", "name"), None),
        (("backbone", "name"), "a\0b"),
        (("method",), "conquer"),
    ],
)
def test_the_command_refuses_it_in_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: Any, value: Any
) -> None:
    import shutil

    folder = resign(Path(shutil.copytree(model, tmp_path / "m")), {path: value})
    status = main(["add-classes", str(folder), "zebra", "--out", str(tmp_path / "n")])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert len(err) < 1000


def test_a_card_is_bounded_before_it_is_parsed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(b'{"a": "' + b"x" * 9 * 1024**2 + b'"}')
    with pytest.raises(ArtifactError, match="more than 8,388,608 bytes"):
        read_card(tmp_path)
