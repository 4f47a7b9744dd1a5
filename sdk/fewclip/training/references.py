"""How zero-shot and a closed-form head do on a run's own images, before it trains anything."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import torch

from fewclip.heads import FeatureSample
from fewclip.methods import registry
from fewclip.methods.frozen_head import FrozenHead
from fewclip.report import wilson
from fewclip.training.plan import Plan

HEAD = "gda"
Right = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class References:
    """
    Attributes:
        zero_shot, head: (n,) which training images they answer right, the head out of fold.
        kept_out: (m,) which validation images the head answers right.
    """

    zero_shot: Right
    head: Right
    kept_out: Right

    def describe(self) -> str:
        """One line for people, before they wait for minutes."""
        if not len(self.head):
            return "training"
        return (
            f"for comparison, out of fold on {len(self.head)} training images: zero-shot "
            f"{with_interval(self.zero_shot)}, {HEAD} {with_interval(self.head)} within seconds; "
            "training"
        )

    def warning(self, method: str, right: Right) -> str:
        """What to say of a method that the head beats by more than chance; "" if it does not.

        Args:
            right: (m,) which validation images the method answers right.
        """
        lost = int((self.kept_out & ~right).sum())
        won = int((right & ~self.kept_out).sum())
        if lost - won <= math.sqrt(lost + won):
            return ""
        return (
            f"{method} answers {with_interval(right)} of the {len(right)} images kept out of "
            f"training, and {HEAD}, which takes seconds, {with_interval(self.kept_out)}; method "
            f"'auto' takes what serves these images best; augment='gentle', more images or another "
            f"learning rate may help {method}"
        )


def with_interval(right: Right) -> str:
    """An accuracy and its 95 % interval."""
    share = float(right.mean())
    low, high = wilson(share, len(right))
    return f"{share:.1%} ({100 * low:.0f} to {high:.0%})"


def measure_references(plan: Plan, train: FeatureSample, val: FeatureSample | None) -> References:
    """Evaluate zero-shot and a closed-form head on features that are already computed.

    Args:
        train, val: training and validation images on the frozen backbone.
    """
    options = registry.make_options(HEAD, {"views": 0})
    method = dataclasses.replace(plan, method=HEAD, options=options).build()
    assert isinstance(method, FrozenHead)
    fitted = method.fit(train, plan.seed)
    held = fitted.out_of_fold
    return References(
        zero_shot=held.logits_itm.argmax(1) == held.labels,
        head=fitted.logits_out_of_fold().argmax(1) == held.labels,
        kept_out=np.zeros(0, bool) if val is None else _right(method, fitted.weight, val),
    )


def _right(method: FrozenHead, weight: float, held: FeatureSample) -> Right:
    device = method.weight.device
    features = torch.from_numpy(held.features).to(device)
    intermediate = held.intermediate
    below = None if intermediate is None else torch.from_numpy(intermediate).to(device)
    cat = method.cat_logits(features, below).cpu().numpy()
    mixed = (1 - weight) * held.logits_itm + weight * cat
    right: Right = mixed.argmax(1) == held.labels
    return right
