"""How much an image resembles the images a model was adapted on. Numbers only; no torch, no answer.

Words alone tell strangers badly from one's own images: every photo has some nearest class name. The
training images tell more. Lee, Lee, Lee, Shin, "A Simple Unified Framework for Detecting
Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018, arXiv 1807.03888: Mahalanobis
distance to the nearest class mean under one shared covariance, here of L2-normalised features and
shrunk, since shots are few. Skip Tuning draws features together onto the trained classes, and
strangers with them. What its frozen lower half sees is not drawn along, and counts too: the paper's
ensemble of layers, as one longer vector.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

SHRINKAGE = 0.1  # towards equal variance in all directions

Floats = npt.NDArray[np.float32]


def join_ood_features(features: Floats, intermediate: Floats | None) -> Floats:
    """What ood_score is judged by: (B, L) float32.

    Args:
        features: (B, D), L2-normalised.
        intermediate: (B, w), L2-normalised mean patch tokens halfway up the image tower, of a
            method with `uses_intermediate`; else None.
    """
    return features if intermediate is None else np.concatenate([features, intermediate], axis=1)


@dataclasses.dataclass(frozen=True)
class OODScore:
    """What the training images looked like to the model.

    Attributes:
        whiten: (L, L) float32; squared distances after it are Mahalanobis distances over L.
        means: (M, L) float32, the classes' whitened mean ood_features.
    """

    whiten: Floats
    means: Floats

    @classmethod
    def fit(cls, ood_features: npt.NDArray[Any], labels: npt.NDArray[Any]) -> OODScore:
        """Learn from `looks` (N, L) of images and their classes (N,), N >= 1."""
        x = np.asarray(ood_features, np.float64)
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

    def score(self, ood_features: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """`looks` (B, L) -> (B,), at most 0, higher is more familiar.

        Minus the squared distance to the nearest class, divided by L.
        """
        z = np.asarray(ood_features, np.float64) @ self.whiten.astype(np.float64)
        means = self.means.astype(np.float64)
        squares = (z**2).sum(1)[:, None] + (means**2).sum(1) - 2 * z @ means.T
        nearest: npt.NDArray[np.float64] = -np.maximum(squares, 0).min(1)
        return nearest
