"""Which method serves these images best: candidates, folds, the choice and its explanation."""

from fewclip.selection.compare import compare
from fewclip.selection.recommendation import Comparison, Row

__all__ = ["Comparison", "Row", "compare"]
