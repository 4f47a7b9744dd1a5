"""How much an image resembles the training images, and the logit a name must reach. No torch.

Data flows from `features` through `neighbours`, `gaussian` and `text` to `score`, and is stored by
`arrays`. Decisions are `fewclip.decide`'s.
"""

from fewclip.ood.arrays import from_arrays, to_arrays
from fewclip.ood.features import NEAREST_PARTS, ood_parts
from fewclip.ood.score import OODScore
from fewclip.ood.text import NEGATIVE_LABELS, TextFeatures

__all__ = [
    "NEAREST_PARTS",
    "NEGATIVE_LABELS",
    "OODScore",
    "TextFeatures",
    "from_arrays",
    "ood_parts",
    "to_arrays",
]
