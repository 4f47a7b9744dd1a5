"""The protocols through the real thing: what is learned, what is tested, what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bench_data
import pytest

import fewclip.bench
from fewclip.backbone.loading import DEFAULTS_FILE, MICRO, load_backbone
from fewclip.bench import sweep as sweeping
from fewclip.bench.datasets import load
from fewclip.bench.sweep import Job, Sweep, accuracy, learn
from fewclip.errors import DataError, OptionError

NAMES = ["red", "ant", "moth", "bee", "fly"]
FAST: dict[str, Any] = {"device": "cpu", "epochs": 1}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench_data.write_folder(tmp_path_factory.mktemp("own") / "own", NAMES, 4, 3)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    bench_data.write_imagenet(root)
    bench_data.write_variants(root)
    bench_data.write_split(root, "dtd", ["goldfish", "n03"], 2, 2)
    return root


def test_base_to_new_is_what_one_would_do_by_hand(own: Path) -> None:
    summary = fewclip.bench.base_to_new(
        own, methods=["zero-shot", "kgcoop+dept"], seeds=[1], shots=2, **FAST
    )
    data = load(own)
    photos = data.sample(2, 1, "base")
    clf = fewclip.adapt(
        [(str(p.image), list(data.classes)[p.label]) for p in photos],
        method="kgcoop+dept",
        augment="published",  # which the papers' protocols keep, whatever the backbone's default
        shots="all",
        val=0,
        seed=1,
        epochs=1,
        progress=False,
        device="cpu",
    )
    assert clf.classes == tuple(data.phrases("base")) == ("ant", "bee", "fly")
    assert summary.row("kgcoop+dept").scores["base"].mean == accuracy(clf, data.tested("base"))
    new = clf.with_classes(data.phrases("new"))
    assert new.card.head.columns == (-1, -1)  # ITM alone
    assert summary.row("kgcoop+dept").scores["new"].mean == accuracy(new, data.tested("new"))
    zero_shot = fewclip.zero_shot(["ant", "bee", "fly"], device="cpu")
    assert summary.row("zero-shot").scores["base"].mean == accuracy(zero_shot, data.tested("base"))
    run = summary.results[1].run
    assert (run["shots"], run["seed"], run["options"]["epochs"]) == (2, 1, 1)
    assert len(summary.results[1].cost["losses"]) == 1


def test_what_is_kept_is_not_run_again(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    wanted: dict[str, Any] = {"seeds": [1], "shots": 2, "out": tmp_path, **FAST}
    first = fewclip.bench.base_to_new(own, methods=["zero-shot", "clip-adapter"], **wanted)
    assert len(list((tmp_path / "runs").iterdir())) == 2
    ran: list[Job] = []

    def count(job: Job, *arguments: Any) -> Any:
        ran.append(job)
        return learn(job, *arguments)

    monkeypatch.setattr(sweeping, "learn", count)
    again = fewclip.bench.base_to_new(
        own, methods=["zero-shot", "clip-adapter"], report_progress=said.append, **wanted
    )
    assert not ran
    assert again == first
    assert all(line.endswith("kept from before") for line in said)
    both = {**wanted, "seeds": [1, 2]}
    fewclip.bench.base_to_new(own, methods=["zero-shot", "clip-adapter"], **both)
    assert [(job.method, job.seed) for job in ran] == [("clip-adapter", 2)]  # zero-shot has no seed
    fewclip.bench.base_to_new(
        own, methods=["clip-adapter"], options={"clip-adapter": {"ratio": 0.5}}, **wanted
    )
    assert len(ran) == 2  # other options are other runs


def test_few_shot_learns_from_each_number_of_images(own: Path) -> None:
    summary = fewclip.bench.few_shot(
        own, methods=["zero-shot", "coop"], seeds=[1], shots=[1, 2], **FAST
    )
    assert [(r.run["method"], r.run["shots"]) for r in summary.results] == [
        ("zero-shot", 0),
        ("coop", 1),
        ("coop", 2),
    ]
    assert summary.columns == ["1 shots", "2 shots"]


def test_speed_measures_learning_and_answering(own: Path) -> None:
    summary = fewclip.bench.speed(own, methods=["kgcoop"], shots=2, **FAST)
    row = summary.row("kgcoop")
    assert row.scores["answers_per_second"].mean > 0
    assert row.scores["trained_parameters"].mean > 0
    assert row.seconds is not None
    assert row.seconds.mean > 0
    assert row.peak_mb is not None
    assert row.peak_mb.mean > 100  # torch alone takes more


def test_domain_keeps_the_trained_classes_that_a_variant_has(
    imagenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: dict[str, Any] = {}

    def look(clf: Any, photos: Any) -> float:
        tested[f"{len(tested)}"] = clf.card
        return accuracy(clf, photos)

    monkeypatch.setattr("fewclip.bench.protocols.accuracy", look)
    summary = fewclip.bench.domain(
        "imagenet", root=imagenet, methods=["kgcoop+dept"], seeds=[1], shots=2, **FAST
    )
    cards = list(tested.values())
    assert [card.head.columns for card in cards] == [
        (0, 1, 2, 3),  # imagenet
        (0, 1, 2, 3),  # V2
        (0, 1, 2, 3),  # Sketch
        (0, 2),  # A
        (1, 2, 3),  # R
    ]
    assert cards[3].phrases == {"n01": "great white shark", "n03": "tabby cat"}
    assert list(summary.results[0].scores) == [
        "imagenet",
        "imagenetv2",
        "imagenet_sketch",
        "imagenet_a",
        "imagenet_r",
        "average",
    ]
    run = summary.results[0].run
    assert run["options"]["dept_weight"] == 0.5  # as published across data sets


def test_cross_dataset_takes_the_target_s_template_and_no_class_for_the_source_s(
    imagenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards: list[Any] = []

    def look(clf: Any, photos: Any) -> float:
        cards.append((clf.card, clf.method.prompt("felt")))
        return accuracy(clf, photos)

    monkeypatch.setattr("fewclip.bench.protocols.accuracy", look)
    summary = fewclip.bench.cross_dataset(
        "imagenet",
        targets=["dtd"],
        root=imagenet,
        methods=["skip-tuning", "clip-adapter+dept"],
        seeds=[1],
        shots=2,
        **FAST,
    )
    (source, _), (target, prompt) = cards[:2]
    assert source.template == "a photo of a {}."
    assert (target.template, prompt) == ("itap of a {}.", "itap of a felt.")
    # 'n03' is a class of dtd here and a label of the source: by chance, not the same class.
    assert list(target.phrases.values()) == ["n03", "goldfish"]
    assert cards[3][0].head.columns == (-1, -1)
    assert cards[3][1] == "felt texture."
    assert summary.results[0].run["templates"] == ["a photo of a {}.", "itap of a {}."]


def test_published_settings_give_way_to_the_backbone_s_and_those_to_what_is_asked(
    imagenet: Path,
) -> None:
    source = load("imagenet", imagenet)

    def options(protocol: str, method: str, **sweep: Any) -> dict[str, Any]:
        job = Job(protocol, source, method, 1, 2, test=lambda *_: {})
        return Sweep(**sweep)._options(job, load_backbone("micro"))

    assert options("few-shot", "maple")["epochs"] == 50
    assert options("base-to-new", "promptsrc+dept")["average_mean"] == 15
    assert options("domain", "promptsrc+dept")["average_mean"] == 6
    skip = options("few-shot", "skip-tuning")
    own = json.loads((MICRO / DEFAULTS_FILE).read_text())["skip-tuning"]
    assert own["image_lr"] != 1e-5  # what was published for few-shot
    assert (skip["image_lr"], skip["warmup_epochs"]) == (own["image_lr"], 0)
    assert skip["epochs"] == 10  # a quarter of 40, for this is ImageNet
    asked = {"": {"batch_size": 8}, "skip-tuning": {"image_lr": 0.5}}
    skip = options("few-shot", "skip-tuning", options=asked, epochs=3)
    assert (skip["image_lr"], skip["batch_size"], skip["epochs"]) == (0.5, 8, 3)


def test_wrong_words_are_refused_before_anything_is_learned(own: Path, imagenet: Path) -> None:
    with pytest.raises(OptionError, match="coop has no option omega"):
        fewclip.bench.base_to_new(own, methods=["coop"], options={"": {"omega": 1}}, **FAST)
    with pytest.raises(OptionError, match="unknown method 'nothing'"):
        fewclip.bench.base_to_new(own, methods=["nothing"], **FAST)
    with pytest.raises(OptionError, match="at least one method"):
        fewclip.bench.base_to_new(own, methods=[], **FAST)
    with pytest.raises(OptionError, match="got own, own"):
        fewclip.bench.base_to_new([own, own], methods=["coop"], **FAST)
    with pytest.raises(OptionError, match="needs targets"):
        fewclip.bench.domain("imagenet", root=imagenet, targets=["imagenet"], **FAST)
    with pytest.raises(DataError, match="no training images"):
        fewclip.bench.base_to_new("imagenet_a", root=imagenet, methods=["coop"], **FAST)


def run_cli(*words: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    from fewclip.cli import main

    status = main(["bench", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_prints_one_table_or_one_json_document(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["base-to-new", own, "--methods", "zero-shot,kgcoop", "--seeds", 1, "--shots", 2]
    words += ["--epochs", 2, "--set", "kgcoop.epochs=1", "--out", tmp_path, "--device", "cpu"]
    status, out, err = run_cli(*words, capsys=capsys)
    assert status == 0
    assert out.startswith("### base-to-new: own\n")
    assert "[2/2] kgcoop (own, 2 shots, seed 1)" in err
    status, out, err = run_cli(*words, "--json", capsys=capsys)
    assert status == 0
    plain = json.loads(out)
    assert [row["method"] for row in plain["rows"]] == ["zero-shot", "kgcoop"]
    assert err.count("kept from before") == 2
    assert (tmp_path / "base-to-new.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["base-to-new", "nowhere"], "neither a file or folder"),
        (["cross-dataset", "imagenet"], "--targets"),
        (["domain", "imagenet", "dtd"], "trains on one data set"),
        (["few-shot", "dtd", "--targets", "ucf101"], "--targets is for"),
        (["base-to-new", "dtd", "--shots", "1", "2"], "only few-shot"),
        (["base-to-new", "dtd", "--shots", "0"], "'0'"),
        (["base-to-new", "dtd", "--seeds", "1,two"], "'two'"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_two(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run_cli(*words, "--out", tmp_path / "out", capsys=capsys)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
