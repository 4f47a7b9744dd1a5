"""Every kind of tower by its features: equal to open_clip's, adapted, saved, refused by name."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image as PILImage

import fewclip
from benchmarks.backbones.tower_kinds import CONFIGS, WITH_INTERMEDIATE, write
from fewclip.backbone import FeatureBackbone, load_backbone
from fewclip.errors import BackboneError, ClassNameError, MissingExtraError, OptionError
from fewclip.samples import digits
from fewclip.training.plan import make_plan

PROMPTS = ["a photo of a cat.", "x", "a photo of a very long dog."]
LARGE = {"eva", "pe-core"}  # timm has them for 224 and 384 pixels only


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("towers")
    return {kind: write(root / kind, kind) for kind in CONFIGS}


def photos(n: int = 6) -> dict[str, list[PILImage.Image]]:
    return {name: [digits.draw(name, i) for i in range(n)] for name in digits.NAMES[:4]}


@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_features_are_open_clips(folders: dict[str, Path], kind: str) -> None:
    backbone = load_backbone(folders[kind])
    assert isinstance(backbone, FeatureBackbone)
    assert not backbone.has_blocks
    size = backbone.preprocess.size
    assert backbone.preprocess.resize_mode == "squash"
    assert backbone.preprocess.interpolation == "bilinear"
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    taps = backbone.new_taps()
    found = backbone.encode_image(pixels, taps)
    wanted = backbone.clip.encode_image(pixels, normalize=False)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    tokens = open_clip.SimpleTokenizer(context_length=backbone.context_length)(PROMPTS)
    texts = backbone.encode_text(backbone.tokenize(PROMPTS))
    torch.testing.assert_close(texts, backbone.clip.encode_text(tokens, normalize=False))
    assert texts.shape == (3, backbone.embed_dim) == (3, 32)
    middle = backbone.intermediate(taps)
    if kind in WITH_INTERMEDIATE:
        assert middle is not None
        assert middle.shape == (2, 5 * backbone.intermediate_width)
        assert torch.isfinite(middle).all()
        assert (middle[0] != middle[1]).any()
    else:
        assert middle is None
        assert backbone.intermediate_width == 0


@torch.no_grad()
def test_logits_are_open_clips_with_its_bias(folders: dict[str, Path]) -> None:
    clf = fewclip.zero_shot(["cat", "dog"], backbone=folders["siglip"], device="cpu")
    backbone = clf.backbone
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = ["a photo of a cat.", "a photo of a dog."]
    tokens = open_clip.SimpleTokenizer(context_length=16)(prompts)
    wanted, _ = backbone.clip.get_logits(pixels, tokens)
    itm, _ = clf.logits(pixels.numpy())
    np.testing.assert_allclose(itm, wanted.numpy(), rtol=1e-5, atol=1e-5)
    assert clf.card.backbone["logit_bias"] == -10


@torch.no_grad()
def test_passes_in_several_threads_keep_their_intermediate_features_apart(
    folders: dict[str, Path],
) -> None:
    backbone = load_backbone(folders["clipa"])
    pixels = torch.randn(4, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found: dict[int, torch.Tensor | None] = {}

    def run(k: int) -> None:
        with torch.no_grad():
            taps = backbone.new_taps()
            for _ in range(10):
                backbone.encode_image(pixels[k], taps)
            found[k] = backbone.intermediate(taps)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(4):
        taps = backbone.new_taps()
        backbone.encode_image(pixels[k], taps)
        torch.testing.assert_close(found[k], backbone.intermediate(taps))


@pytest.mark.parametrize(
    ("kind", "method"),
    [(kind, "gda") for kind in CONFIGS if kind not in LARGE]
    + [("resnet", "linear-probe"), ("coca", "clip-adapter"), ("siglip", "clip-adapter+dept")],
)
def test_methods_of_features_adapt_save_and_load(
    folders: dict[str, Path], tmp_path: Path, kind: str, method: str
) -> None:
    options: dict[str, Any] = {"epochs": 1} if "adapter" in method else {}
    clf = fewclip.adapt(
        photos(), method=method, backbone=folders[kind], shots=4, progress=False, **options
    )
    clf.save(tmp_path / "m")
    again = fewclip.load(tmp_path / "m", device="cpu")
    images = [image for group in photos(2).values() for image in group]
    np.testing.assert_array_equal(again.predict_proba(images), clf.predict_proba(images))
    assert again.add_classes(["zebra"]).predict_proba(images[:1]).shape == (1, 5)


def test_auto_chooses_among_what_works(folders: dict[str, Path]) -> None:
    clf = fewclip.adapt(
        photos(), method="auto", budget=30, backbone=folders["clipa"], shots=4, progress=False
    )
    tried = [row["candidate"] for row in clf.card.training["selection"]["rows"]]
    assert sorted(tried) == ["gda", "linear-probe", "zero-shot"]


@pytest.mark.parametrize("method", ["coop", "maple", "skip-tuning", "dept"])
def test_methods_that_need_blocks_refuse_before_any_work(
    folders: dict[str, Path], method: str
) -> None:
    """Not even the data is read."""
    with pytest.raises(OptionError, match="ResNet") as caught:
        fewclip.adapt("no/such/folder", method=method, backbone=folders["resnet"], progress=False)
    text = str(caught.value)
    assert "\n" not in text
    assert "work with it: clip-adapter, clip-adapter+dept, gda, linear-probe, zero-shot" in text
    with pytest.raises(OptionError, match=r"skip-tuning .*RN50/openai"):
        fewclip.adapt("no/such/folder", method="skip-tuning", backbone="RN50/openai")


def test_compare_refuses_by_name_what_was_named(folders: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match="ResNet"):
        fewclip.compare(photos(), methods=["coop"], backbone=str(folders["resnet"]))


# ---- text that is not CLIP's -----------------------------------------------------------------


def foreign(folder: Path) -> Path:
    """A backbone whose text tower reads another tokenizer."""
    text = CONFIGS["clipa"]["text_cfg"] | {"vocab_size": 120, "hf_tokenizer_name": "org/words"}
    return write(folder, "clipa", text_cfg=text)


def test_a_tokenizer_that_is_not_here_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((BackboneError, MissingExtraError), match="org/words") as caught:
        load_backbone(foreign(tmp_path / "b"))
    assert "\n" not in str(caught.value)
    assert "pip install" in str(caught.value) or "tokenizer.json" in str(caught.value)


def test_a_text_tower_that_is_not_here_is_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "b", "clipa")
    path = folder / "open_clip_config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"] = {
        "hf_model_name": "org/model",
        "hf_pooler_type": "mean_pooler",
    }
    path.write_text(json.dumps(config))
    with pytest.raises(
        (BackboneError, MissingExtraError), match=r"cannot be built|pip install"
    ) as caught:
        load_backbone(folder)
    assert "\n" not in str(caught.value)


class Words:
    """A tokenizer of whole words, as open_clip's wrappers behave: padded, cut, never refusing."""

    tokenizer_mode = ""

    def clean_fn(self, text: str) -> str:
        return text

    def tokenizer(self, text: str, add_special_tokens: bool) -> Any:
        ids = [2 + sum(map(ord, word)) % 100 for word in text.split()] + [1]
        return type("Encoded", (), {"input_ids": ids})

    def __call__(self, texts: list[str], context_length: int) -> torch.Tensor:
        rows = [self.tokenizer(text, True).input_ids[:context_length] for text in texts]
        padded = [row + [0] * (context_length - len(row)) for row in rows]
        return torch.tensor(padded)


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That backbone, with its tokenizer at hand."""
    from fewclip.backbone.text_tokens import ForeignTokenizer

    monkeypatch.setattr(
        "fewclip.backbone.loading.wrapping.load_tokenizer",
        lambda *_, **__: ForeignTokenizer(Words()),
    )
    return foreign(tmp_path / "b")


def test_a_prompt_too_long_for_another_tokenizer_is_refused_not_cut(words: Path) -> None:
    backbone = load_backbone(words)
    assert backbone.token_rows(["a " * 15]).shape == (1, 16)
    with pytest.raises(ClassNameError, match="takes 17 tokens but the backbone reads 16"):
        backbone.tokenize(["short", "a " * 16])


@pytest.mark.slow
def test_an_export_without_a_tokenizer_has_fixed_classes(words: Path, tmp_path: Path) -> None:
    from fewclip.runtime import OnnxClassifier
    from fewclip.runtime.probe import probe

    clf = fewclip.adapt(photos(), method="gda", backbone=words, shots=4, progress=False)
    report = clf.export_onnx(tmp_path / "x")
    assert report.passed
    assert report.new_class_agreement is None
    assert "none can be added" in str(report)
    assert not {"text.onnx", "tokenizer.json"} & set(report.files)
    probe(tmp_path / "x")
    exported = OnnxClassifier(tmp_path / "x", "cpu")
    assert not exported.takes_new_classes
    images = [image for group in photos(1).values() for image in group]
    np.testing.assert_allclose(exported.predict_proba(images), clf.predict_proba(images), atol=1e-3)
    fewer = exported.with_classes(list(exported.classes[:3]))
    assert fewer.predict_proba(images).shape == (4, 3)
    with pytest.raises(ClassNameError, match="its own classes only, and 'zebra'"):
        exported.add_classes(["zebra"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convnext", "siglip"])
def test_gda_passes_the_gate(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """The other kinds: benchmarks/results/backbones.md."""
    clf = fewclip.adapt(photos(), method="gda", backbone=folders[kind], shots=4, progress=False)
    report = clf.export_onnx(tmp_path / "x")
    assert report.passed
    assert report.new_class_agreement == 1.0


def test_a_run_is_refused_before_its_data_is_read(folders: dict[str, Path]) -> None:
    from fewclip.training import AdaptConfig

    with pytest.raises(OptionError, match="timm"):
        make_plan("no/such/folder", AdaptConfig(method="vpt", backbone=folders["convnext"]))
