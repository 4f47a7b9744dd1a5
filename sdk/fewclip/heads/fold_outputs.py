"""Outputs out of fold: heads are weighed by them, models calibrated. It fits neither."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewclip.heads.linear import Floats, Ints
from fewclip.heads.mixture import Mixture, fit_mixture


@dataclasses.dataclass(frozen=True)
class FoldOutputs:
    """Outputs for the images that one fold, or several, hold out, from models fitted on the others.

    Attributes:
        images, labels: (h,) indices of these images, and their classes.
        logits_itm: (h, M) of the text; without heads, log-probabilities before any temperature.
        heads: (h, M) logits of each head, in any scale; once weighed, of the one head they became.
        ood_terms: (h, C) or (h, 1) each, of the OOD score fitted with the tower; empty if unknown.
    """

    images: Ints
    labels: Ints
    logits_itm: NDArray[np.float32]
    heads: Sequence[NDArray[np.float32]]
    ood_terms: Mapping[str, Floats] = dataclasses.field(default_factory=dict)

    @classmethod
    def join(cls, folds: Sequence[FoldOutputs]) -> FoldOutputs:
        """Several folds as one."""
        return cls(
            np.concatenate([fold.images for fold in folds]),
            np.concatenate([fold.labels for fold in folds]),
            np.concatenate([fold.logits_itm for fold in folds]),
            [np.concatenate(parts) for parts in zip(*(f.heads for f in folds), strict=True)],
            {
                name: np.concatenate([fold.ood_terms[name] for fold in folds])
                for name in folds[0].ood_terms
                if all(name in fold.ood_terms for fold in folds)
            },
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """By name, for `from_arrays`."""
        parts: dict[str, NDArray[Any]] = {"images": self.images, "labels": self.labels}
        heads = {f"head.{k}": part for k, part in enumerate(self.heads)}
        terms = {f"ood.{name}": term for name, term in self.ood_terms.items()}
        return {**parts, "logits_itm": self.logits_itm, **heads, **terms}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FoldOutputs:
        """From `to_arrays`.

        Raises:
            KeyError: one is missing.
        """
        heads = [arrays[name] for name in arrays if name.startswith("head.")]
        terms = {k.removeprefix("ood."): x for k, x in arrays.items() if k.startswith("ood.")}
        return cls(arrays["images"], arrays["labels"], arrays["logits_itm"], heads, terms)

    @property
    def logits_cat(self) -> NDArray[np.float32] | None:
        """(h, M) of the head that others were weighed into; None without heads."""
        assert len(self.heads) < 2
        return next(iter(self.heads), None)

    def mixture(self) -> Mixture:
        """The factors that suit these images best.

        The priors are those for a text that knows nothing, because the heads know what it does:
        both read features of the tower that was tuned with it.
        """
        return fit_mixture(self.logits_itm, self.heads, self.labels, knowledge=0.0)

    def logits(self) -> Floats:
        """(h, M) of the text and the heads together, calibrated."""
        return self.mixture().logits(self.logits_itm, self.heads)


def folds_to_arrays(folds: Sequence[FoldOutputs]) -> dict[str, NDArray[Any]]:
    """By name, for `folds_from_arrays`."""
    return {
        f"{k}/{name}": array
        for k, fold in enumerate(folds)
        for name, array in fold.to_arrays().items()
    }


def folds_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> tuple[FoldOutputs, ...]:
    """From `folds_to_arrays`.

    Raises:
        KeyError: one is missing.
    """
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        fold, _, own = name.partition("/")
        parts.setdefault(fold, {})[own] = array
    return tuple(FoldOutputs.from_arrays(part) for part in parts.values())
