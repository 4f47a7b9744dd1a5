"""Training: plan a run, the one loop, checkpoints, progress. No method is defined here."""

from fewclip.training.config import AdaptConfig
from fewclip.training.loop import Progress
from fewclip.training.plan import Plan, describe, make_plan
from fewclip.training.run import execute

__all__ = ["AdaptConfig", "Plan", "Progress", "describe", "execute", "make_plan"]
