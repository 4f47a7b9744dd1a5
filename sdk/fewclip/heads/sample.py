"""Training images as a frozen image tower sees them: what every head is fitted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewclip.heads.augmented import AugmentedViews, head_features, head_parts
from fewclip.heads.disk_rows import Float32s
from fewclip.heads.linear import AnyFloats, Floats, Ints, row_blocks

IMAGES = 512  # whose features exist in float64 at a time


@dataclasses.dataclass(frozen=True)
class FeatureSample:
    """n training images as they are classified, and in augmented views.

    Attributes:
        features: (n, D) float32, before L2 normalisation.
        intermediate: (n, 5 w) float32, None for a tower without residual blocks.
        labels: (n,) class of each image.
        logits_itm: (n, M) float32 zero-shot logits.
        augmented: V augmented views of each; None without any.
    """

    features: Float32s
    intermediate: Float32s | None
    labels: Ints
    logits_itm: Float32s
    augmented: AugmentedViews | None = None

    @property
    def views(self) -> int:
        """Rows of an image: itself and its augmented views."""
        return 1 if self.augmented is None else 1 + self.augmented.views

    @property
    def width(self) -> int:
        """L, the columns of `head_features`."""
        return int(self._plain(np.arange(0)).shape[1])

    def plain(
        self, images: NDArray[Any] | None = None, dtype: type[np.floating[Any]] = np.float64
    ) -> AnyFloats:
        """(n, L) of `head_features`; float32 is as precise as the features are.

        Args:
            images: indices of those wanted; None for all.
        """
        wanted = np.arange(len(self.labels)) if images is None else images
        plain = np.empty((len(wanted), self.width), dtype)
        for some in row_blocks(len(wanted), IMAGES):
            plain[some] = self._plain(wanted[some])
        return plain

    def joined(self, images: Ints, dtype: type[np.floating[Any]], columns: int) -> AnyFloats:
        """(n, 1 + V, `columns`) of `head_features`, the image itself first."""
        joined = np.empty((len(images), self.views, columns), dtype)
        joined[:, 0] = self.plain(images, dtype)[:, :columns]
        if self.augmented is not None:
            self.augmented.read(images, joined[:, 1:])
        return joined

    def rows(self, images: Ints, dtype: type[np.floating[Any]]) -> Rows:
        """`joined` as a matrix of (n * (1 + V), L), which is read when it is indexed."""
        return Rows(self, images, dtype, self.width)

    def take(self, images: NDArray[Any]) -> FeatureSample:
        """Some of the images only: indices or a mask."""
        wanted = np.arange(len(self.labels))[images]
        return FeatureSample(
            self.features[wanted],
            None if self.intermediate is None else self.intermediate[wanted],
            self.labels[wanted],
            self.logits_itm[wanted],
            None if self.augmented is None else self.augmented.take(wanted),
        )

    def _plain(self, images: NDArray[Any]) -> Floats:
        middle = None if self.intermediate is None else self.intermediate[images]
        return head_features(self.features[images], middle)


@dataclasses.dataclass(frozen=True)
class Rows:
    """A sample's (N, L) matrix of rows, all views of an image next to each other.

    It holds none of them: a thousand classes have more rows than anything else in the process.
    """

    sample: FeatureSample
    of: Ints
    dtype: type[np.floating[Any]]
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.of) * self.sample.views, self.columns

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Ints) -> AnyFloats:
        """(n, L) of some rows; reading is quick where they are close together."""
        wanted, views = np.arange(len(self))[rows], self.sample.views
        images, at = np.unique(wanted // views, return_inverse=True)
        joined = self.sample.joined(self.of[images], self.dtype, self.columns)
        return joined[at, wanted % views]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = np.empty(self.shape, dtype or self.dtype)
        for some in row_blocks(len(self)):
            whole[some] = self[some]
        return whole

    def first_columns(self, count: int) -> Rows:
        """The matrix with only the first columns."""
        return dataclasses.replace(self, columns=count)


AnyMatrix = AnyFloats | Rows


class SampleBuilder:
    """Collects a `FeatureSample` of n images batch by batch, without a second copy of any.

    Args:
        labels: (n,) class of each image.
    """

    def __init__(self, labels: Sequence[int] | Ints) -> None:
        self._labels = np.asarray(labels, np.int64)
        self._sample: FeatureSample | None = None
        self._filled = 0

    def add(
        self,
        features: Float32s,
        intermediate: Float32s | None,
        logits_itm: Float32s,
    ) -> None:
        """Add the next images.

        Args:
            features: (b, 1 + V, D) before normalisation; the image itself first.
            intermediate: (b, 1 + V, 5 w), or None.
            logits_itm: (b, M) of the images themselves.
        """
        if self._sample is None:
            self._sample = self._empty(features, intermediate, logits_itm)
        sample, at = self._sample, slice(self._filled, self._filled + len(features))
        sample.features[at] = features[:, 0]
        if sample.intermediate is not None and intermediate is not None:
            sample.intermediate[at] = intermediate[:, 0]
        sample.logits_itm[at] = logits_itm
        if sample.augmented is not None:
            sample.augmented.fill(at, [part[:, 1:] for part in head_parts(features, intermediate)])
        self._filled = at.stop

    def sample(self) -> FeatureSample:
        """The sample, once all n images are added."""
        assert self._sample is not None
        assert self._filled == len(self._labels)
        return self._sample

    def _empty(
        self,
        features: Float32s,
        intermediate: Float32s | None,
        logits_itm: Float32s,
    ) -> FeatureSample:
        """A sample of n images like those of the first batch, to be filled."""
        n = len(self._labels)
        views = [part[:, 1:] for part in head_parts(features, intermediate)]
        middle = None if intermediate is None else intermediate.shape[2]
        return FeatureSample(
            np.empty((n, features.shape[2]), np.float32),
            None if middle is None else np.empty((n, middle), np.float32),
            self._labels,
            np.empty((n, logits_itm.shape[1]), np.float32),
            AugmentedViews.empty(n, views) if views[0].shape[1] else None,
        )
