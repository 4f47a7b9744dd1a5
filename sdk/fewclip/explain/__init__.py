"""Which parts of an image support a class: a heat map, by attention relevance or by occlusion.

`explanation` is what a caller gets, `occlusion` needs only model outputs, `relevance` (torch) the
attention of a ViT's blocks.
"""

from fewclip.explain.explanation import Explanation, Question
from fewclip.explain.occlusion import occlusion

__all__ = ["Explanation", "Question", "occlusion"]
