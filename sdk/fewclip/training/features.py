"""Training images -> features of a method's image tower, plain and augmented. It trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from fewclip.heads import FeatureSample, SampleBuilder
from fewclip.methods.base import Method
from fewclip.preprocess import (
    WORKERS,
    Image,
    augment,
    load_image,
    reduce_for_training,
    to_input,
)

CHUNK = 32  # views that go through the tower at once, over all images


def sample_features(
    method: Method,
    images: Sequence[Image],
    labels: Sequence[int],
    phrases: Sequence[str],
    *,
    views: int = 0,
    crop_area: float = 1.0,
    flip: bool = False,
    seed: int = 0,
) -> FeatureSample:
    """Features of every image, decoded once, in `1 + views` views, the plain one first.

    Args:
        method: ready for inference.
        labels: class of each image, indices into `phrases`.
        crop_area, flip: of the augmented views.
        seed: together with an image's index, it determines the image's views.
    """
    spec = method.backbone.preprocess

    def inputs(at: int) -> np.ndarray:
        image = load_image(images[at])
        plain = to_input(image, spec)
        if not views:
            return plain[None]
        pixels = reduce_for_training(image, spec)
        rng = np.random.default_rng([seed, 4, at])
        extra = [augment(pixels, spec, rng, crop_area=crop_area, flip=flip) for _ in range(views)]
        return np.stack([plain, *extra])

    builder = SampleBuilder(labels)
    step = max(1, CHUNK // (1 + views))
    with torch.inference_mode(), ThreadPoolExecutor(WORKERS) as pool:
        embeddings = method.class_embeddings(phrases)
        for first in range(0, len(images), step):
            some = range(first, min(first + step, len(images)))
            batch = np.stack(list(pool.map(inputs, some)))  # (n, V, 3, H, W)
            pixels = torch.from_numpy(batch.reshape(-1, *batch.shape[2:]))
            found, intermediate = method.features_and_intermediate(
                pixels.to(method.backbone.device)
            )
            text = method.text_for(embeddings, found)
            itm = method.itm_logits(found, text)
            of_image = (len(some), 1 + views, -1)
            builder.add(
                _plain(found).reshape(of_image),
                None if intermediate is None else _plain(intermediate).reshape(of_image),
                _plain(itm).reshape(of_image)[:, 0],
            )
    return builder.sample()


def _plain(x: torch.Tensor) -> np.ndarray:
    array: np.ndarray = x.float().cpu().numpy()
    return array
