"""Training: plan a run, the one loop, checkpoints, progress. No method is defined here."""

from fewclip.training.adapt import Plan, execute, plan
from fewclip.training.config import AdaptConfig
from fewclip.training.loop import Progress

__all__ = ["AdaptConfig", "Plan", "Progress", "execute", "plan"]
