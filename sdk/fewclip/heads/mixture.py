"""How much the text and each head count, by stacking their out-of-fold logits.

The logits of a head fitted on a few images per fold have the wrong scale, and log-loss alone would
then trust the text too much, so each part gets its own factor, weight and temperature in one.
Wolpert, "Stacked generalization", Neural Networks 1992. The problem is convex.

With a dozen images, chance alone can make any head look useless and the text useful, or the other
way round, so factors have priors, which fade as images are added. What they expect depends on how
well the text does on the training images, which it was not fitted on. Where it is at chance: a
gamma distribution for the sum of the heads' factors expects them to be useful, and an exponential
one for the text's factor needs evidence to grow. The better the text does, the weaker both are, and
the more evidence the heads need instead, by an exponential prior of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from fewclip.heads.disk_rows import DiskRows
from fewclip.heads.linear import AnyFloats, Floats, Head, Ints, row_blocks
from fewclip.heads.loss import mean_and_gradient

_RIDGE = 0.02  # images' worth of prior on text alone: on separable data its factor would diverge
_HEADS = 2.0  # strength, in images, of the heads' gamma prior; its mode: factors summing to 1
_TEXT = 4.0  # rate of the exponential prior of the text
_DOUBT = 8.0  # rate of the exponential prior of the heads where the text is always right
NUMBERS = 2**18  # logits of each part that are held in float64 at a time
_TRACE = 1e-3  # least factor of the text: where heads cannot decide, its ranking does

Scalar = TypeVar("Scalar", np.float32, np.float64)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """`softmax(text * logits_itm + sum_k heads[k] * logits_k)`.

    Attributes:
        text, heads: the factors, >= 0.
        weight: share of the heads in the answer, 0..1, with all logits scaled to the same spread.
    """

    text: float
    heads: tuple[float, ...]
    weight: float

    def logits(self, itm: AnyFloats, heads: Sequence[AnyFloats]) -> Floats:
        """(B, M) text logits and (B, M) of each head -> (B, M) calibrated logits."""
        return _weighted((self.text, *self.heads), (itm, *heads), np.float64)

    def absorb(self, heads: Sequence[Head]) -> Head:
        """One head in the text's scale.

        `(1 - weight) * logits_itm + weight * absorbed` is the mixture divided by `sharpness`.
        """
        factors = zip(heads, self._factors, strict=True)
        scaled = [head.scaled(factor) for head, factor in factors]
        return Head(
            np.sum([head.weight for head in scaled], axis=0),
            np.sum([head.bias for head in scaled], axis=0),
        )

    def absorb_logits(self, heads: Sequence[AnyFloats | DiskRows]) -> NDArray[np.float32]:
        """The logits of `absorb`'s head, from (B, M) logits of each head."""
        return _weighted(self._factors, heads, np.float32)

    @property
    def _factors(self) -> list[float]:
        return [factor / (self.sharpness * max(self.weight, 1e-9)) for factor in self.heads]

    @property
    def sharpness(self) -> float:
        """Inverse temperature of the absorbed mixture."""
        return self.text / (1 - self.weight)


def _weighted(
    factors: Sequence[float], parts: Sequence[AnyFloats | DiskRows], dtype: type[Scalar]
) -> NDArray[Scalar]:
    """The sum of (B, M) parts, each times its factor; it is summed in float64."""
    total = np.empty(parts[0].shape, dtype)
    for some in _few_rows(total):
        total[some] = sum(
            factor * part[some].astype(np.float64)
            for factor, part in zip(factors, parts, strict=True)
        )
    return total


def _few_rows(logits: AnyFloats | DiskRows) -> Iterator[slice]:
    """Slices of (B, M) logits that hold `NUMBERS` of them or a row."""
    return row_blocks(len(logits), max(1, NUMBERS // logits.shape[1]))


def fit_mixture(
    itm: AnyFloats,
    heads: Sequence[AnyFloats | DiskRows],
    labels: Ints,
    knowledge: float | None = None,
) -> Mixture:
    """The factors of least out-of-fold log-loss.

    Args:
        itm: (n, M) logits of the text.
        heads: (n, M) each, out of fold; empty to fit the text's temperature alone.
        labels: (n,) true classes, n >= 1.
        knowledge: how much the priors favour the text, 0..1; None for `text_knowledge`.
    """
    parts, n = (itm, *heads), len(labels)
    spread = np.array([mean_spread(part) for part in parts])
    spread[spread < 1e-9] = 1.0
    favour = text_knowledge(itm, labels) if knowledge is None else knowledge

    def loss(factors: Floats) -> tuple[float, Floats]:
        fit, slope = _prior(factors, favour)
        for some in _few_rows(itm):
            block = np.stack([part[some] for part in parts]) / spread[:, None, None]  # (K, b, M)
            mean, by_logits = mean_and_gradient(np.tensordot(factors, block, 1), labels[some])
            fit += mean * block.shape[1]
            slope = slope + np.tensordot(block, by_logits, 2) * block.shape[1]
        return fit / n, slope / n

    bounds = [(_TRACE, None)] + [(0.0, None)] * len(heads)
    start = np.full(len(spread), 1.0 / len(spread))
    factors = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    weight = float(factors[1:].sum() / factors.sum())
    scaled = factors / spread
    return Mixture(float(scaled[0]), tuple(map(float, scaled[1:])), weight)


def mean_spread(logits: AnyFloats | DiskRows) -> float:
    """Mean over images of the standard deviation over classes: (n, M) logits, n >= 1."""
    spread = [logits[some].std(1, dtype=np.float64) for some in _few_rows(logits)]
    return float(np.concatenate(spread).mean())


def text_knowledge(itm: AnyFloats, labels: Ints) -> float:
    """How far the text's accuracy is from chance towards 1: (n, M) logits, (n,) labels -> 0..1.

    One image per class, answered at chance, is added, so that a few images cannot say much.
    """
    right = int((itm.argmax(1) == labels).sum())
    chance = 1 / itm.shape[1]
    accuracy = (right + 1) / (len(labels) + itm.shape[1])
    knowledge = (accuracy - chance) / (1 - chance)
    return knowledge if knowledge > 0 else 0.0


def _prior(factors: Floats, knowledge: float) -> tuple[float, Floats]:
    """Negative logarithm of the prior of (K,) factors, the text's first, and its gradient."""
    if len(factors) == 1:
        return 0.5 * _RIDGE * float(factors @ factors), _RIDGE * factors
    total = max(float(factors[1:].sum()), 1e-6)
    fading = (1 - knowledge) ** 2
    strength, text, doubt = _HEADS * fading, _TEXT * fading, _DOUBT * knowledge
    slope = np.full(len(factors), strength * (1 - 1 / total) + doubt)
    slope[0] = text
    gamma = strength * (total - float(np.log(total)))
    return text * float(factors[0]) + gamma + doubt * total, slope
