"""Logits -> answers: fusion of heads, temperature, top-k, known. Nowhere else; no torch.

Logits from torch and from ONNX Runtime both become answers here, so a trained model and its export
cannot disagree about anything but rounding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewclip import conformal
from fewclip.contract import Calibration, ConformalScores, HeadSpec
from fewclip.errors import OptionError

TARGET_TPR = 0.95  # share of in-distribution validation images above the 'unknown' threshold

# A head comes in the scale of its text, which may be a hundredth of its own: tuning on many classes
# can leave their texts nearly alike.
_TEMPERATURES = (0.001, 20.0)

Floats = NDArray[np.float64]


class Score(NamedTuple):
    """One class and its calibrated probability, 0..1."""

    label: str
    score: float


class ModelOutputs(NamedTuple):
    """What a model computes for B images.

    Attributes:
        logits_itm: (B, M) float32.
        logits_cat: (B, columns of the CAT head) float32, None without DePT.
        ood_score: (B,) float64 from `OODScore`, None for a model that saw no image.
        named_bound: (B,) float64 from `OODScore`, the ITM logit that a class known by name alone
            has to reach; None if there is no such class.
    """

    logits_itm: NDArray[np.float32]
    logits_cat: NDArray[np.float32] | None
    ood_score: NDArray[np.float64] | None
    named_bound: NDArray[np.float64] | None = None

    @classmethod
    def join(cls, parts: Sequence[ModelOutputs]) -> ModelOutputs:
        """The outputs of one or more batches as one."""
        return cls(*(_end_to_end(column) for column in zip(*parts, strict=True)))


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: the most probable class.
        score: its calibrated probability, 0..1.
        top: the most probable classes, best first.
        known: False when the image looks like none of the classes; None when the model cannot tell,
            as with zero-shot.
        prediction_set: if a coverage was asked for, the labels that together hold the truth at that
            rate, the most probable first; else None.
    """

    label: str
    score: float
    top: tuple[Score, ...]
    known: bool | None
    prediction_set: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON types: {"label", "score", "known", "top": [{"label", "score"}]}.

        And "prediction_set", a list of labels, if a coverage was asked for.
        """
        plain: dict[str, Any] = {
            "label": self.label,
            "score": self.score,
            "known": self.known,
            "top": [entry._asdict() for entry in self.top],
        }
        if self.prediction_set is not None:
            plain["prediction_set"] = list(self.prediction_set)
        return plain


def _end_to_end(parts: Sequence[NDArray[Any] | None]) -> Any:
    """The arrays concatenated along the first axis; None if there are none."""
    return None if parts[0] is None else np.concatenate([p for p in parts if p is not None])


def probabilities(
    logits_itm: ArrayLike, logits_cat: ArrayLike | None, head: HeadSpec, temperature: float = 1.0
) -> Floats:
    """Probabilities over the current classes.

    q = softmax(itm) over all. With DePT the trained classes' share of q is redistributed among
    them by softmax((1 - lambda) * itm + lambda * cat); added classes keep q. Then
    p ~ p ** (1 / temperature), which leaves the order as it is.

    Args:
        logits_itm: (B, M).
        logits_cat: (B, columns of the CAT head), None without DePT.

    Returns:
        (B, M) float64; rows sum to 1.
    """
    return np.exp(log_probabilities(logits_itm, logits_cat, head, temperature))


def log_probabilities(
    logits_itm: ArrayLike, logits_cat: ArrayLike | None, head: HeadSpec, temperature: float = 1.0
) -> Floats:
    """Natural logarithm of `probabilities`, exact even where those are close to 0: (B, M)."""
    return _log_softmax(_log_probabilities(logits_itm, logits_cat, head) / temperature)


def in_distribution_score(
    logits_itm: ArrayLike,
    logits_cat: ArrayLike | None,
    head: HeadSpec,
    calibration: Calibration,
    ood_score: ArrayLike,
    named_bound: ArrayLike | None = None,
) -> Floats:
    """How much each image looks like the class it is given: (B,) float64, higher is more.

    For an image whose best class was seen in training: its OOD score, standardised by those of
    in-distribution images. An image whose best class is known by name alone is unlike the training
    images in any case, so its ITM logit counts, relative to the bound set by negative labels and
    training images. Without that bound, out-of-distribution images would be taken for any class
    that is typed in.

    Args:
        logits_itm: (B, M).
        logits_cat: (B, columns of the head over the trained classes), None without one.
        ood_score, named_bound: (B,) from `OODScore.score_and_bound`; without a bound nothing is
            known by name alone.
    """
    itm = np.asarray(logits_itm, dtype=np.float64)
    best = _log_probabilities(itm, logits_cat, head).argmax(axis=1)
    named = itm[np.arange(len(itm)), best]
    bound = np.inf if named_bound is None else np.asarray(named_bound, dtype=np.float64)
    by_name = named - bound + calibration.named_threshold
    seen = np.asarray(ood_score, dtype=np.float64)
    seen = (seen - calibration.ood_center) / calibration.ood_spread
    return np.where(np.asarray(head.columns)[best] >= 0, seen, by_name)


def decide(
    logits_itm: ArrayLike,
    logits_cat: ArrayLike | None,
    labels: Sequence[str],
    head: HeadSpec,
    calibration: Calibration,
    top_k: int = 5,
    ood_score: ArrayLike | None = None,
    named_bound: ArrayLike | None = None,
    *,
    coverage: float | None = None,
    class_wise: bool = False,
    conformal_scores: ConformalScores | None = None,
) -> list[Prediction]:
    """One answer per row of logits.

    Args:
        logits_itm: (B, M).
        logits_cat: (B, columns of the CAT head), None without DePT.
        labels: the M classes, in the order of the logits.
        top_k: how many classes to name; at most M are.
        ood_score, named_bound: (B,), None for a model that saw no image.
        coverage: how often `prediction_set` must hold the truth, 0..1; None for no sets.
        class_wise: hold `coverage` for the images of each class rather than for all together.
        conformal_scores: from the card; the sets are computed from them.

    Raises:
        OptionError: `top_k` is not a whole number >= 1, or `coverage` is not between 0 and 1.
        CoverageError: this model cannot promise `coverage`.
    """
    check_top_k(top_k)
    rows = probabilities(logits_itm, logits_cat, head, calibration.temperature_for(head))
    known = _known(logits_itm, logits_cat, head, calibration, ood_score, named_bound)
    best = np.argsort(-rows, axis=1, kind="stable")[:, :top_k]
    sets: Sequence[tuple[str, ...] | None] = [None] * len(rows)
    if coverage is not None:
        bounds = conformal.check_coverage(conformal_scores, head, coverage, class_wise=class_wise)
        plain = probabilities(logits_itm, logits_cat, head)
        sets = conformal.prediction_sets(plain, bounds, labels)
    predictions = []
    for row, order, is_known, inside in zip(rows, best, known, sets, strict=True):
        top = tuple(Score(labels[i], float(row[i])) for i in order)
        predictions.append(Prediction(top[0].label, top[0].score, top, is_known, inside))
    return predictions


def check_top_k(top_k: object) -> None:
    """Refuse anything but a whole number >= 1.

    Raises:
        OptionError: it is not.
    """
    whole = isinstance(top_k, (int, np.integer)) and not isinstance(top_k, bool)
    if not whole or top_k < 1:  # type: ignore[operator]
        raise OptionError(f"top_k must be a whole number of at least 1, not {top_k!r}")


def _known(
    logits_itm: ArrayLike,
    logits_cat: ArrayLike | None,
    head: HeadSpec,
    calibration: Calibration,
    ood_score: ArrayLike | None,
    named_bound: ArrayLike | None,
) -> list[bool | None]:
    """`Prediction.known` of each row."""
    rows = len(np.asarray(logits_itm))
    if ood_score is None:
        return [None] * rows
    if calibration.threshold is None:  # accept everything, perhaps for want of images to measure
        return [True if calibration.calibrated else None] * rows
    scores = in_distribution_score(
        logits_itm, logits_cat, head, calibration, ood_score, named_bound
    )
    return [bool(score >= calibration.threshold) for score in scores]


def fit_calibration(
    logits_itm: ArrayLike,
    logits_cat: ArrayLike | None,
    labels: ArrayLike,
    head: HeadSpec,
    ood_score: ArrayLike | None = None,
) -> Calibration:
    """Fit temperature and 'unknown' threshold on images that the logits were not fitted on.

    Args:
        logits_itm: (B, M).
        logits_cat: (B, columns of the head over the trained classes), None without one.
        labels: (B,) integer class of each image.
        ood_score: (N,) of in-distribution images, these or others; None for a model that saw no
            image.
    """
    truth = np.asarray(labels, dtype=np.int64)
    temperature = text_temperature = 1.0
    if truth.size:
        temperature = _fit_temperature(_log_probabilities(logits_itm, logits_cat, head), truth)
        if head.dept_weight is not None:
            text_temperature = _fit_temperature(_log_probabilities(logits_itm, None, head), truth)
    seen = np.zeros(0) if ood_score is None else np.asarray(ood_score, dtype=np.float64)
    seen = seen[np.isfinite(seen)]
    threshold, center, spread = None, 0.0, 1.0
    if seen.size:
        center, spread = _center_and_spread(seen)
        threshold = _fit_threshold((seen - center) / spread)
    return Calibration(
        temperature=temperature,
        text_temperature=text_temperature,
        threshold=threshold,
        named_threshold=threshold or 0.0,
        ood_center=center,
        ood_spread=spread,
        n=int(truth.size),
    )


def _center_and_spread(values: Floats) -> tuple[float, float]:
    """Mean and standard deviation; 1 for a standard deviation of almost 0."""
    spread = float(values.std())
    return float(values.mean()), spread if spread > 1e-9 else 1.0


def _log_probabilities(
    logits_itm: ArrayLike, logits_cat: ArrayLike | None, head: HeadSpec
) -> Floats:
    """Natural logarithm of the probabilities before calibration, (B, M)."""
    itm = np.asarray(logits_itm, dtype=np.float64)
    log_q = _log_softmax(itm)
    trained = list(head.trained)
    if logits_cat is None or head.dept_weight is None or not trained:
        return log_q
    cat = np.asarray(logits_cat, dtype=np.float64)[:, [head.columns[i] for i in trained]]
    fused = (1 - head.dept_weight) * itm[:, trained] + head.dept_weight * cat
    share = _log_sum(log_q[:, trained])  # (B, 1)
    log_q[:, trained] = share + _log_softmax(fused)
    return log_q


def _log_sum(x: Floats) -> Floats:
    top = x.max(axis=1, keepdims=True)
    total: Floats = top + np.log(np.exp(x - top).sum(axis=1, keepdims=True))
    return total


def _log_softmax(x: Floats) -> Floats:
    return x - _log_sum(x)


def _fit_temperature(log_p: Floats, truth: NDArray[np.int64]) -> float:
    """The temperature of least negative log-likelihood, kept near 1 while images are few.

    A handful of images that are all classified correctly would ask for unlimited confidence; a
    prior worth one image (log-normal around 1) limits it, and fades as images are added.
    """
    rows = np.arange(len(truth))

    def loss(log_t: float) -> float:
        fit = -_log_softmax(log_p / math.exp(log_t))[rows, truth].sum()
        return float(fit + log_t**2 / 2)

    return math.exp(_minimum(loss, math.log(_TEMPERATURES[0]), math.log(_TEMPERATURES[1])))


def _minimum(f: Callable[[float], float], low: float, high: float, steps: int = 40) -> float:
    """Golden-section search for the minimum of a function with one valley."""
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = f(a), f(b)
    for _ in range(steps):
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = f(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = f(b)
    return (low + high) / 2


def _fit_threshold(scores: Floats) -> float:
    """The threshold that `TARGET_TPR` of new in-distribution images reach, ranked among n + 1.

    It is between two scores, not on one, so rounding in another runtime cannot refuse the very
    image that set it. With fewer than 19 images it is below them all.
    """
    ordered = np.sort(scores)
    rank = (1 - TARGET_TPR) * (len(ordered) + 1)
    if rank < 1:
        return float(ordered[0] - (1 - rank) * max(float(ordered.std()), 1e-3))
    low = int(rank)
    above = ordered[min(low, len(ordered) - 1)]
    return float((ordered[low - 1] + above) / 2)
