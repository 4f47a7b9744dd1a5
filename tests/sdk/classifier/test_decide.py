"""Logits -> answers, against plain arithmetic written out here."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewclip.contract import Calibration, HeadSpec
from fewclip.decide import decide, fit_calibration, probabilities
from fewclip.errors import OptionError

PLAIN = HeadSpec(logit_scale=100.0, columns=(0, 1, 2))
LABELS = ["a", "b", "c"]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    result: np.ndarray = e / e.sum()
    return result


def test_without_dept_it_is_softmax() -> None:
    logits = np.array([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    p = probabilities(logits.astype(np.float32), None, PLAIN)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p, [softmax(row) for row in logits], rtol=1e-12)


def test_with_dept_trained_classes_share_their_part_anew() -> None:
    """Classes: added, trained (column 2), trained (column 0); column 1 was removed."""
    head = HeadSpec(logit_scale=100.0, columns=(-1, 2, 0), dept_weight=0.7)
    itm, cat = np.array([[1.0, 2.0, 0.5]]), np.array([[3.0, 9.0, -1.0]])
    q = softmax(itm[0])
    fused = softmax(np.array([0.3 * 2.0 + 0.7 * -1.0, 0.3 * 0.5 + 0.7 * 3.0]))
    expected = [q[0], *((q[1] + q[2]) * fused)]
    np.testing.assert_allclose(probabilities(itm, cat, head), [expected], rtol=1e-12)


def test_with_dept_and_only_trained_classes_it_is_the_fused_softmax() -> None:
    head = dataclasses.replace(PLAIN, dept_weight=0.5)
    itm, cat = np.array([[1.0, 2.0, 0.5]]), np.array([[3.0, 9.0, -1.0]])
    np.testing.assert_allclose(
        probabilities(itm, cat, head), [softmax((itm + cat)[0] / 2)], rtol=1e-12
    )


def test_with_dept_and_no_trained_class_left_it_is_softmax() -> None:
    head = HeadSpec(logit_scale=100.0, columns=(-1, -1), dept_weight=0.7)
    itm = np.array([[1.0, 2.0]])
    np.testing.assert_allclose(probabilities(itm, np.ones((1, 3)), head), [softmax(itm[0])])


def test_temperature_sharpens_or_softens_and_keeps_the_order() -> None:
    logits = np.array([[1.0, 3.0, 2.0]])
    np.testing.assert_allclose(
        probabilities(logits, None, PLAIN, 2.0), [softmax(logits[0] / 2)], rtol=1e-12
    )
    head = HeadSpec(logit_scale=100.0, columns=(-1, 0, 1), dept_weight=0.7)
    cat = np.array([[0.0, 4.0]])
    for t in (0.1, 1.0, 9.0):
        order = probabilities(logits, cat, head, t).argsort()
        np.testing.assert_array_equal(order, probabilities(logits, cat, head).argsort())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.integers(1, 6), st.integers(0, 4), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 500.0])
)
def test_rows_are_always_probabilities(m: int, trained: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    columns = tuple(rng.permutation([*range(min(m, trained)), *([-1] * (m - min(m, trained)))]))
    head = HeadSpec(logit_scale=100.0, columns=columns, dept_weight=0.7)
    itm = size * rng.normal(size=(3, m)).astype(np.float32)
    cat = size * rng.normal(size=(3, trained)).astype(np.float32)
    p = probabilities(itm, cat if trained else None, head, 0.3)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(axis=1), 1.0)


def test_an_answer() -> None:
    (answer,) = decide([[1.0, 3.0, 2.0]], None, LABELS, PLAIN, Calibration(), 2)
    assert answer.label == "b"
    assert [entry.label for entry in answer.top] == ["b", "c"]
    assert answer.score == answer.top[0].score == pytest.approx(softmax(np.array([1, 3, 2]))[1])
    assert answer.known is None
    assert answer.to_dict() == {
        "label": "b",
        "score": answer.score,
        "known": None,
        "top": [
            {"label": "b", "score": answer.score},
            {"label": "c", "score": answer.top[1].score},
        ],
    }
    json.dumps(answer.to_dict())
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.label = "x"  # type: ignore[misc]


def test_ties_go_to_the_first_class_and_top_k_is_capped() -> None:
    (answer,) = decide([[2.0, 2.0, 2.0]], None, LABELS, PLAIN, Calibration(), 99)
    assert [entry.label for entry in answer.top] == LABELS


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "3", None, True])
def test_a_top_k_that_is_none_is_refused(top_k: Any) -> None:
    with pytest.raises(OptionError, match="top_k"):
        decide([[1.0, 2.0, 3.0]], None, LABELS, PLAIN, Calibration(), top_k)


def test_known_is_at_or_above_the_threshold() -> None:
    rows = np.array([[5.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    answers = decide(rows, None, LABELS, PLAIN, Calibration(threshold=-1.0), 5, [-1.0, -1.1])
    assert [answer.known for answer in answers] == [True, False]


def test_known_is_none_where_there_is_nothing_to_tell_by() -> None:
    rows = np.array([[5.0, 0.0, 0.0]])
    assert decide(rows, None, LABELS, PLAIN, Calibration(threshold=0.0))[0].known is None
    assert decide(rows, None, LABELS, PLAIN, Calibration(), 5, [0.0])[0].known is None
    assert decide(rows, None, LABELS, PLAIN, Calibration(n=5), 5, [-9.0])[0].known is True


def sample(n: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose best temperature is `scale`: drawn from softmax(logits / scale)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)) * 2
    labels = np.array([rng.choice(3, p=softmax(row)) for row in logits])
    return logits * scale, labels


@pytest.mark.parametrize("scale", [0.01, 0.25, 1.0, 6.0])
def test_calibration_finds_the_temperature(scale: float) -> None:
    logits, labels = sample(4000, scale)
    found = fit_calibration(logits, None, labels, PLAIN)
    assert found.temperature == pytest.approx(scale, rel=0.08)
    assert found.n == 4000


def test_few_images_that_are_all_right_do_not_give_boundless_confidence() -> None:
    logits = np.eye(3) * 4
    found = fit_calibration(logits, None, np.arange(3), PLAIN)
    assert 0.3 < found.temperature < 1
    assert probabilities(logits, None, PLAIN, found.temperature).max() < 0.9999999


@pytest.mark.parametrize(("n", "runs"), [(19, 200), (100, 100), (1000, 40)])
def test_calibration_accepts_about_95_percent_of_new_images(n: int, runs: int) -> None:
    rng = np.random.default_rng(n)
    accepted = []
    for _ in range(runs):
        logits, labels = sample(n, 3.0, seed=int(rng.integers(1 << 30)))
        found = fit_calibration(logits, None, labels, PLAIN, rng.standard_normal(n))
        assert found.threshold is not None
        new = (rng.standard_normal(2000) - found.ood_center) / found.ood_spread
        accepted.append((new >= found.threshold).mean())
    assert np.mean(accepted) == pytest.approx(0.95, abs=0.015)


def test_few_own_images_are_all_accepted() -> None:
    logits, labels = sample(3, 3.0)
    found = fit_calibration(logits, None, labels, PLAIN, [1.0, 2.0, 5.0])
    assert found.threshold is not None
    assert found.threshold < (1.0 - found.ood_center) / found.ood_spread


def test_a_class_known_by_name_is_held_to_the_bound() -> None:
    head = HeadSpec(logit_scale=100.0, columns=(0, 1, -1))
    found = fit_calibration(np.eye(3)[:, :3], None, [0, 1, 2], PLAIN, [0.0, 1.0, 2.0])
    rows = np.array([[0, 0, 21.9], [0, 0, 22.1], [22.1, 0, 0]])
    seen = [-99.0, -99.0, -99.0]
    answers = decide(rows, None, LABELS, head, found, 5, seen, [22.0, 22.0, 22.0])
    assert [answer.known for answer in answers] == [False, True, False]
    answers = decide(rows, None, LABELS, head, found, 5, seen)
    assert not any(answer.known for answer in answers)


def test_no_images_no_calibration() -> None:
    found = fit_calibration(np.zeros((0, 3)), None, [], PLAIN)
    assert found == Calibration()
    assert not found.calibrated
    assert found.threshold is None


def test_classes_known_by_name_alone_have_the_temperature_of_the_text() -> None:
    """A head that is unsure of itself asks for sharper answers; the text has not asked for them."""
    itm, labels = sample(2000, 3.0)
    head = dataclasses.replace(PLAIN, dept_weight=1.0)
    found = fit_calibration(itm, itm / 12, labels, head)
    assert found.temperature == pytest.approx(0.25, rel=0.1)
    named = HeadSpec(logit_scale=100.0, columns=(-1, -1, -1), dept_weight=1.0)
    answer = decide(itm[:1], itm[:1] / 12, LABELS, named, found, top_k=1)[0]
    assert answer.score == pytest.approx(softmax(itm[0] / 3).max(), rel=0.1)
    assert found.temperature_for(head) == found.temperature
    no_head = dataclasses.replace(named, dept_weight=None)
    assert found.temperature_for(no_head) == found.temperature
