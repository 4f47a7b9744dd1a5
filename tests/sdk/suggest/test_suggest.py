"""`suggest`: typical and new, never the same picture twice, from exports as well."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from exports import exported_model, saved_model
from handwritten_digits import LABELS, write_digits
from PIL import Image, ImageOps

import fewclip
from fewclip.cli import main
from fewclip.errors import ImageError, OptionError
from fewclip.images import Image as AnyImage
from fewclip.runtime import OnnxClassifier
from fewclip.samples import digits
from fewclip.suggest.choice import RIDGE, centred, design


def saved_again(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def clusters() -> np.ndarray:
    """Three bunches of 30, 10 and 4 directions, far from each other, and one alone."""
    rng = np.random.default_rng(0)
    centres = np.eye(4, 16)
    counts = (30, 10, 4, 1)
    found: np.ndarray = np.concatenate(
        [c + 0.03 * rng.normal(size=(n, 16)) for c, n in zip(centres, counts, strict=True)]
    ).astype(np.float32)
    unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def test_the_largest_unlabelled_bunch_comes_first() -> None:
    x = clusters()
    picks = design(x, x[:0], 3)
    assert picks[0].at < 30
    assert picks[0].stands_for > 20
    assert any(30 <= pick.at < 40 for pick in picks)
    features, labelled = x[5:], x[:5]  # the first bunch has labels
    assert 25 <= design(features, labelled, 1)[0].at < 35
    last = design(features, labelled, len(features))[-1]
    assert last.is_new == (last.at == len(features) - 1)  # the one that is alone


def test_the_gain_is_the_variance_that_a_label_takes_away() -> None:
    """Against ridge regression's predictive variance, written down plainly."""
    rng = np.random.default_rng(1)
    features, labelled = centred(rng.normal(size=(12, 5)), rng.normal(size=(4, 5)))

    def variance(rows: np.ndarray) -> float:
        spread = np.linalg.inv(rows.T @ rows / RIDGE + np.eye(5))
        return float(np.trace(features @ spread @ features.T))

    before = variance(labelled)
    gains = [before - variance(np.vstack([labelled, row])) for row in features]
    (pick,) = design(features, labelled, 1)
    assert pick.at == int(np.argmax(gains))
    assert pick.gain == pytest.approx(max(gains), rel=1e-4)


def test_a_mirrored_copy_is_the_same_picture() -> None:
    clf = fewclip.zero_shot(LABELS, device="cpu")
    pool = [digits.draw("four", 5), ImageOps.mirror(digits.draw("four", 5))]
    assert len(clf.suggest(pool, n=2)) == 1


def test_no_picture_twice_and_none_that_was_learned(tmp_path: Path) -> None:
    """5 digits a class were learned from; the pool has copies of some, and pairs of copies."""
    photos = write_digits(tmp_path / "digits", 0, 5)
    clf = fewclip.adapt(photos, method="gda", val=0, device="cpu", progress=False)
    learned = [saved_again(digits.draw(label, i)) for label in LABELS for i in range(4)]
    new = [digits.draw(label, 60 + i) for label in LABELS for i in range(10)]
    pool: list[AnyImage] = [*learned, *new, *map(saved_again, new)]
    found = clf.suggest(pool, n=len(pool))
    at = [next(i for i, image in enumerate(pool) if image is each.image) for each in found]
    assert min(at) >= len(learned)
    pictures = [(i - len(learned)) % len(new) for i in at]
    assert len(set(pictures)) == len(pictures)
    assert len(found) > len(new) // 2
    scores = [each.score for each in found]
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)
    assert all("labelled" in each.reason for each in found)


def test_zero_shot_names_typical_images_and_bad_input_is_refused() -> None:
    clf = fewclip.zero_shot(LABELS, device="cpu")
    pool = [digits.draw(label, i) for label in LABELS for i in range(5)]
    found = clf.suggest(pool, n=3)
    assert len(found) == 3
    assert clf.suggest([], n=3) == []
    assert [each.image for each in clf.suggest(pool[0])] == [pool[0]]
    for n in (0, -1, 1.5, True):
        with pytest.raises(OptionError, match="whole number"):
            clf.suggest(pool, n=n)  # type: ignore[arg-type]
    with pytest.raises(ImageError):
        clf.suggest(["no-such-file.png"])


def test_an_export_suggests_the_same(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in LABELS:
        for i in range(6):
            digits.draw(label, 70 + i).save(tmp_path / f"{label}-{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    pool = sorted(str(p) for p in tmp_path.glob("*-*.png"))
    saved, exported = saved_model(tmp_path_factory), exported_model(tmp_path_factory)
    one = fewclip.load(saved, device="cpu").suggest(pool, 5)
    two = OnnxClassifier(exported).suggest(pool, 5)
    assert [s.image for s in one] == [s.image for s in two]
    assert main(["suggest", str(exported), str(tmp_path), "--n", "5", "--json"]) == 0
    out = capsys.readouterr()
    told = json.loads(out.out)
    assert [each["image"] for each in told] == [s.image for s in two]
    assert set(told[0]) == {"image", "score", "reason"}
    assert "broken.png" in out.err
