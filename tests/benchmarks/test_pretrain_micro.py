"""The pretraining script really runs, for a few steps, and its backbone really loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fewclip
from benchmarks.bundled.pretrain_micro import Words, contrastive_loss, main
from fewclip.samples import digits


def test_other_true_captions_are_not_held_against_an_image() -> None:
    torch.manual_seed(0)
    image, text = F.normalize(torch.randn(4, 8), dim=-1), F.normalize(torch.randn(3, 8), dim=-1)
    own = torch.tensor([0, 1, 2, 0])
    true = F.one_hot(own, 3).bool()
    scale = torch.tensor(10.0)
    plain = contrastive_loss(image, text, own, true, scale)
    logits = scale * image @ text.T
    to_image = torch.stack([-logits[:, c].log_softmax(0)[own == c].mean() for c in range(3)]).mean()
    torch.testing.assert_close(plain, F.cross_entropy(logits, own) + to_image / 2)
    true[0, 1] = True
    eased = F.cross_entropy(logits[:1, [0, 2]], torch.tensor([0]))
    rest = F.cross_entropy(logits[1:], own[1:], reduction="sum")
    got = contrastive_loss(image, text, own, true, scale)
    column = -logits[:, 1].log_softmax(0)[:2].mean()
    other = [-logits[:, c].log_softmax(0)[own == c].mean() for c in (0, 2)]
    torch.testing.assert_close(got, (eased + rest) / 4 + (sum(other) + column) / 6)


def test_words_are_drawn_in_the_stated_shares() -> None:
    words = Words("cat", ("kitty",), ("animal",))
    rng = np.random.default_rng(0)
    drawn = [words.draw(rng) for _ in range(4000)]
    assert drawn.count("cat") / 4000 == pytest.approx(0.65, abs=0.03)
    assert drawn.count("kitty") / 4000 == pytest.approx(0.10, abs=0.02)
    assert drawn.count("animal") / 4000 == pytest.approx(0.25, abs=0.03)
    assert Words("cat").draw(rng) == "cat"


def test_a_few_steps_make_a_backbone_that_loads_and_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("one", "zero"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(16):
            digits.draw(label, i).save(tmp_path / "images" / label / f"{i}.png")
    config = {
        "embed_dim": 64,
        "quick_gelu": False,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2,
        },
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"model_cfg": config}))
    (tmp_path / "names.json").write_text(json.dumps({"one": {"name": "one", "coarse": ["line"]}}))
    out = tmp_path / "backbone"
    words = [str(tmp_path / "images"), "--out", str(out), "--config", str(tmp_path / "config.json")]
    more = ["--names", str(tmp_path / "names.json"), "--batch", "16", "--steps", "12"]
    main([*words, *more, "--warmup", "2", "--lr", "0.003"])
    said = capsys.readouterr().err.splitlines()
    first, last = (float(line.split()[-1]) for line in (said[0], said[-1]))
    assert last < first
    clf = fewclip.zero_shot(["one", "zero"], backbone=out)
    report = clf.evaluate(tmp_path / "images")
    assert report.n == 32
