"""Training: plan a run, the one loop, checkpoints, progress. No method is defined here."""

from fewclip.training.adapt import Plan, execute, plan
from fewclip.training.loop import Progress

__all__ = ["Plan", "Progress", "execute", "plan"]
