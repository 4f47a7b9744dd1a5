"""`explain`: heat where the evidence is, equal answers on the way, and the same from an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import exported_model, saved_model
from PIL import Image

import fewclip
from fewclip import decide
from fewclip.backbone.attention import AttentionMaps, explicit_attention
from fewclip.cli import main
from fewclip.errors import ClassNameError, ImageError
from fewclip.explain import Explanation, Question
from fewclip.explain.explanation import over_photo
from fewclip.explain.occlusion import covered, occlusion
from fewclip.explain.relevance import log_probabilities
from fewclip.preprocess import preprocess
from fewclip.runtime import OnnxClassifier
from fewclip.samples import digits, surfaces


@pytest.fixture(scope="module")
def damaged() -> fewclip.Classifier:
    """`gda` on twelve drawn surfaces of each of three classes."""
    labels = ("whole", "stained", "cracked")
    images = {label: [surfaces.draw(label, i) for i in range(12)] for label in labels}
    return fewclip.adapt(images, method="gda", val=0, device="cpu", progress=False)


def pixels(clf: fewclip.Classifier, *images: Image.Image) -> torch.Tensor:
    return torch.from_numpy(preprocess(images, clf.card.preprocessing))


@pytest.mark.parametrize("method", ["zero-shot", "kgcoop+dept", "maple", "vpt", "skip-tuning"])
def test_attention_in_the_open_gives_the_tower_s_own_output(photos: Path, method: str) -> None:
    clf = fewclip.adapt(
        photos, method=method, shots=2, val=0, epochs=1, device="cpu", progress=False
    )
    seen = pixels(clf, digits.draw("one", 50), digits.draw("zero", 51))
    with torch.inference_mode():
        plain = clf.method.features_and_intermediate(seen)
        with AttentionMaps() as maps:
            open_ = clf.method.features_and_intermediate(seen)
    for a, b in zip(plain, open_, strict=True):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert len(maps.probabilities) == clf.backbone.image_depth
    assert maps.probabilities[0].shape[-2] == maps.probabilities[0].shape[-1]
    assert all(torch.allclose(p.sum(-1), torch.ones(())) for p in maps.probabilities)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": torch.eye(5) > 0}])
def test_explicit_attention_is_torch_s(options: dict[str, Any]) -> None:
    q, k, v = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(explicit_attention(q, k, v, **options)[0], expected)


def test_what_is_explained_is_what_is_answered(
    tuned_dept: fewclip.Classifier, damaged: fewclip.Classifier
) -> None:
    for clf in (tuned_dept.add_classes(["zebra"]), damaged):
        itm, cat = clf.logits([digits.draw("one", 50), surfaces.draw("stained", 40)])
        expected = decide.log_probabilities(itm, cat, clf.card.head, 1.7)
        found = log_probabilities(
            torch.from_numpy(itm),
            None if cat is None else torch.from_numpy(cat),
            clf.card.head,
            1.7,
        )
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
        np.testing.assert_allclose(
            np.exp(expected), decide.probabilities(itm, cat, clf.card.head, 1.7)
        )


def test_heat_is_where_the_damage_is(damaged: fewclip.Classifier) -> None:
    """Far more often than chance, by attention and by occlusion alike."""
    hits: dict[str, list[bool]] = {"attention": [], "occlusion": []}
    areas = []
    for label in ("stained", "cracked"):
        for seed in range(100, 104):
            photo, damage = surfaces.draw_with_damage(label, seed)
            areas.append(damage.mean())
            found = damaged.explain(photo, label)
            assert found.method == "attention"
            x, y = found.peak
            hits["attention"].append(_near(damage, x, y))
            if seed % 2:  # occlusion takes 65 images for one
                continue
            question = Question(damaged.classes.index(label))
            inputs = pixels(damaged, photo)[0].numpy()
            heat = occlusion(lambda batch: _answer(damaged, batch), inputs, question)
            smooth = over_photo(heat, photo, damaged.card.preprocessing)
            hottest = divmod(int(smooth.argmax()), smooth.shape[1])
            hits["occlusion"].append(_near(damage, hottest[1], hottest[0]))
    assert np.mean(areas) < 0.25
    assert np.mean(hits["attention"]) >= 0.75
    assert np.mean(hits["occlusion"]) >= 0.75


def _near(damage: np.ndarray, x: int, y: int) -> bool:
    return bool(damage[max(y - 8, 0) : y + 9, max(x - 8, 0) : x + 9].any())


def _answer(clf: fewclip.Classifier, batch: np.ndarray) -> np.ndarray:
    return decide.log_probabilities(*clf.logits(batch), clf.card.head)


def test_a_photo_of_any_shape_and_a_class_typed_on_the_spot(
    tuned_dept: fewclip.Classifier,
) -> None:
    photo = Image.new("RGB", (150, 90), "black")
    photo.paste(digits.draw("one", 50).resize((90, 90)), (30, 0))
    found = tuned_dept.explain(photo, "zebra", contrast="one")
    assert isinstance(found, Explanation)
    assert (found.label, found.contrast) == ("zebra", "one")
    assert found.heatmap.shape == (90, 150)
    assert found.heatmap.dtype == np.float32
    assert found.heatmap.min() == 0
    assert found.heatmap.max() == 1
    assert not found.heatmap[:, :30].any()  # cropped away before the model sees it
    assert found.overlay().size == photo.size
    assert found.score == pytest.approx(
        tuned_dept.add_classes("zebra").predict_proba(photo)[0, -1], abs=1e-6
    )
    assert tuned_dept.classes == ("four", "one", "zero")
    assert tuned_dept.explain(photo).label == tuned_dept.predict(photo)[0].label
    both = [tuned_dept.explain(photo, a, b).heatmap for a, b in (("one", "zero"), ("zero", "one"))]
    assert not np.allclose(both[0], both[1])


def test_inference_mode_and_text_that_depends_on_the_image(photos: Path) -> None:
    clf = fewclip.adapt(
        photos, method="cocoop", shots=1, val=0, epochs=1, device="cpu", progress=False
    )
    with torch.inference_mode():
        assert clf.explain(digits.draw("one", 50), "one").method == "attention"


def test_what_cannot_be_explained(tuned_dept: fewclip.Classifier) -> None:
    photo = digits.draw("one", 50)
    with pytest.raises(ClassNameError, match="contrasted with itself"):
        tuned_dept.explain(photo, "one", contrast="one")
    with pytest.raises(ClassNameError):
        tuned_dept.explain(photo, "  ")
    with pytest.raises(ImageError):
        tuned_dept.explain("no-such-file.png")


def test_covered_parts_take_the_colour_around_them() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 32, dtype=np.float32), (3, 32, 32))
    images = covered(np.ascontiguousarray(ramp))
    assert images.shape == (65, 3, 32, 32)
    np.testing.assert_array_equal(images[0], ramp)
    changed = images[1:] != ramp
    assert (changed.any(1).sum((1, 2)) == 16).all()
    middle = images[1 + 3 * 8 + 3, :, 12:16, 12:16]
    assert np.allclose(middle, ramp[:, 12:16, 12:16].mean(), atol=1e-3)


def test_an_export_explains_by_occlusion(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = digits.draw("zero", 60)
    saved = fewclip.load(saved_model(tmp_path_factory), device="cpu")
    found = OnnxClassifier(exported_model(tmp_path_factory)).explain(photo, "zero")
    assert found.method == "occlusion"
    inputs = pixels(saved, photo)[0].numpy()
    temperature = saved.card.calibration.temperature
    expected = occlusion(
        lambda batch: decide.log_probabilities(*saved.logits(batch), saved.card.head, temperature),
        inputs,
        Question(saved.classes.index("zero")),
    )
    smooth = over_photo(expected, photo, saved.card.preprocessing)
    np.testing.assert_allclose(found.heatmap, smooth, atol=1e-2)

    photo.save(tmp_path / "photo.png")
    words = ["explain", str(saved_model(tmp_path_factory)), str(tmp_path / "photo.png")]
    assert main([*words, "--out", str(tmp_path / "a" / "heat.png"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"] == "attention"
    with Image.open(tmp_path / "a" / "heat.png") as overlay:
        assert overlay.size == photo.size
    assert main([*words, "--out", str(tmp_path / "photo.png")]) == 2
    assert "the photo itself" in capsys.readouterr().err
