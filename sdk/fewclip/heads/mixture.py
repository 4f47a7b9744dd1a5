"""How much the text counts and how much each head, by stacking their out-of-fold logits.

A head fitted on a few images per fold speaks in the wrong scale, and log-loss alone would then
trust the text too much: so each part gets a factor of its own, which is weight and temperature in
one. Wolpert, "Stacked generalization", Neural Networks 1992. The problem is convex.

With a dozen images chance alone can make any head look useless and the text useful, so factors have
priors: the heads' together a gamma distribution, which expects them to tell something, and the
text's an exponential one, which wants evidence. Both fade as images are added.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from fewclip.heads.linear import Floats, Head, Ints
from fewclip.heads.loss import mean_and_gradient

_RIDGE = 0.02  # images' worth of prior on the text alone: on separable data it would run off
_HEADS = (
    2.0  # strength of the gamma prior of the heads, in images; its mode is a sum of factors of 1
)
_TEXT = 4.0  # rate of the exponential prior of the text
_TRACE = 1e-3  # of the text always counts: where no head tells, its order is still the answer


@dataclasses.dataclass(frozen=True)
class Mixture:
    """`softmax(text * logits_itm + sum_k heads[k] * logits_k)`.

    Attributes:
        text, heads: the factors, >= 0.
        weight: share of the heads in the answer, 0..1, with logits brought to one spread.
    """

    text: float
    heads: tuple[float, ...]
    weight: float

    def logits(self, itm: Floats, heads: Sequence[Floats]) -> Floats:
        """(B, M) text logits and (B, M) of each head -> (B, M) calibrated logits."""
        parts = zip(self.heads, heads, strict=True)
        total: Floats = self.text * itm + np.sum([f * part for f, part in parts], axis=0)
        return total

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

    def absorb_logits(self, heads: Sequence[Floats]) -> Floats:
        """What `absorb` would say, from (B, M) logits of each head."""
        parts = zip(self._factors, heads, strict=True)
        total: Floats = np.sum([factor * part for factor, part in parts], axis=0)
        return total

    @property
    def _factors(self) -> list[float]:
        return [factor / (self.sharpness * max(self.weight, 1e-9)) for factor in self.heads]

    @property
    def sharpness(self) -> float:
        """Inverse temperature of the absorbed answer."""
        return self.text / (1 - self.weight)


def fit_mixture(itm: Floats, heads: Sequence[Floats], labels: Ints) -> Mixture:
    """The factors of least out-of-fold log-loss.

    Args:
        itm: (n, M) logits of the text.
        heads: (n, M) each, out of fold; none: the text's temperature alone.
        labels: (n,) true classes, n >= 1.
    """
    parts = np.stack([itm, *heads])  # (K, n, M)
    spread = parts.std(2).mean(1)
    spread[spread < 1e-9] = 1.0
    parts = parts / spread[:, None, None]
    n = len(labels)

    def loss(factors: Floats) -> tuple[float, Floats]:
        fit, by_logits = mean_and_gradient(np.tensordot(factors, parts, 1), labels)
        prior, slope = _prior(factors)
        return fit + prior / n, np.tensordot(parts, by_logits, 2) + slope / n

    bounds = [(_TRACE, None)] + [(0.0, None)] * len(heads)
    start = np.full(len(parts), 1.0 / len(parts))
    factors = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    weight = float(factors[1:].sum() / factors.sum())
    scaled = factors / spread
    return Mixture(float(scaled[0]), tuple(map(float, scaled[1:])), weight)


def _prior(factors: Floats) -> tuple[float, Floats]:
    """Negative logarithm of the prior of (K,) factors, the text's first, and its gradient."""
    if len(factors) == 1:
        return 0.5 * _RIDGE * float(factors @ factors), _RIDGE * factors
    total = max(float(factors[1:].sum()), 1e-6)
    slope = np.full(len(factors), _HEADS * (1 - 1 / total))
    slope[0] = _TEXT
    return _TEXT * float(factors[0]) + _HEADS * (total - float(np.log(total))), slope
