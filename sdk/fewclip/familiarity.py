"""How much an image resembles the images a model was adapted on. Numbers only; no torch, no answer.

Words alone tell strangers badly from one's own images: every photo has some nearest class name. The
training images tell more. Lee, Lee, Lee, Shin, "A Simple Unified Framework for Detecting
Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018, arXiv 1807.03888: Mahalanobis
distance to the nearest class mean under one shared covariance, here of L2-normalised features and
shrunk, since shots are few.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

SHRINKAGE = 0.1  # towards equal variance in all directions

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Familiarity:
    """What the training images looked like to the model.

    Attributes:
        whiten: (D, D) float32; squared distances after it are Mahalanobis distances over D.
        means: (M, D) float32, the classes' whitened mean features.
    """

    whiten: Floats
    means: Floats

    @classmethod
    def fit(cls, features: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Familiarity:
        """Learn from features (N, D), L2-normalised, and their classes (N,), N >= 1."""
        x = np.asarray(features, np.float64)
        n, d = x.shape
        classes = np.unique(labels)
        means = np.stack([x[labels == c].mean(0) for c in classes])
        centred = x - means[np.searchsorted(classes, labels)]
        if n == len(classes):  # one shot: no spread within a class to learn from
            centred = x - x.mean(0)
        covariance = centred.T @ centred / n
        level = np.trace(covariance) / d or 1.0
        covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(d)
        values, vectors = np.linalg.eigh(covariance)
        whiten = vectors / np.sqrt(values * d)  # (D, D)
        return cls(whiten.astype(np.float32), (means @ whiten).astype(np.float32))

    def score(self, features: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """L2-normalised features (B, D) -> (B,), at most 0, higher is more familiar.

        Minus the squared distance to the nearest class, divided by D.
        """
        z = np.asarray(features, np.float64) @ self.whiten.astype(np.float64)
        means = self.means.astype(np.float64)
        squares = (z**2).sum(1)[:, None] + (means**2).sum(1) - 2 * z @ means.T
        nearest: npt.NDArray[np.float64] = -np.maximum(squares, 0).min(1)
        return nearest
