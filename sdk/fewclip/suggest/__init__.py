"""Which unlabelled images to label next. No torch.

`choice` picks from features, `suggestion` says what to label and why.
"""

from fewclip.suggest.suggestion import Candidates, Suggestion, grey_copies, suggest

__all__ = ["Candidates", "Suggestion", "grey_copies", "suggest"]
