"""The OOD score as named arrays, for a model file. Reading trusts no shape; no file access."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.ood.features import NEAREST_PARTS, PRINCIPAL_PARTS
from fewclip.ood.neighbours import NEIGHBOURS
from fewclip.ood.score import OODScore
from fewclip.ood.text import TextFeatures

_SINGLE = ("labels", "whiten", "means", "center", "spread", "group_center", "group_spread")
_NUMBERED = ("images", "principal_mean", "principal_axes")  # one array for each part

Arrays = Mapping[str, npt.NDArray[Any]]


def to_arrays(score: OODScore) -> dict[str, npt.NDArray[Any]]:
    """Everything `OODScore.score_and_bound` needs, by name."""
    arrays: dict[str, npt.NDArray[Any]] = {f"ood_{k}": getattr(score, k) for k in _SINGLE}
    for name in _NUMBERED:
        arrays |= {f"ood_{name}_{k}": part for k, part in enumerate(getattr(score, name))}
    arrays |= {"ood_local": score.local} if len(score.local) else {}
    return arrays | ({} if score.texts is None else score.texts.to_arrays())


def from_arrays(arrays: Arrays) -> OODScore | None:
    """`to_arrays` read back; None where there are none of them.

    Raises:
        KeyError, ValueError: an array is missing, or its shape does not fit the others.
    """
    if not any(name.startswith("ood_images_") for name in arrays):
        return None
    fields: dict[str, Any] = {name: _numbered(arrays, f"ood_{name}_") for name in _NUMBERED}
    fields |= {name: arrays[f"ood_{name}"] for name in _SINGLE}
    fields["local"] = arrays.get("ood_local", np.zeros(0, np.float32))
    score = OODScore(**fields, texts=TextFeatures.from_arrays(arrays))
    if not (_shapes_fit(score) and _scales_fit(score)):
        raise ValueError("arrays of the OOD score do not fit each other")
    return score


def _numbered(arrays: Arrays, prefix: str) -> tuple[Any, ...]:
    count = sum(name.startswith(prefix) for name in arrays)
    return tuple(arrays[f"{prefix}{k}"] for k in range(count))


def _shapes_fit(score: OODScore) -> bool:
    n, classes, width = len(score.labels), len(np.unique(score.labels)), score.whiten.shape[-1]
    several = len(score.local) > 0
    axes = zip(score.principal_mean, score.principal_axes, strict=True)
    return (
        n > 0
        and all(part.ndim == 2 and len(part) == n for part in score.images)
        and score.images[0].shape == (n, width)
        and score.whiten.shape == (width, width)
        and score.means.shape == (classes, width)
        and len(score.images) in (1, NEAREST_PARTS)
        and score.local.shape == ((n,) if several else (0,))
        and (not several or (len(score.images) == NEAREST_PARTS and n > NEIGHBOURS))
        and len(score.principal_mean) == (len(PRINCIPAL_PARTS) if several else 0)
        and all(a.ndim == 2 and m.shape == a.shape[1:] for m, a in axes)
        and (score.texts is None or score.texts.fits(classes, width))
    )


def _scales_fit(score: OODScore) -> bool:
    terms, groups = (len(score.term_names),), (len(score.groups),)
    return (
        score.center.shape == score.spread.shape == terms
        and score.group_center.shape == score.group_spread.shape == groups
    )
