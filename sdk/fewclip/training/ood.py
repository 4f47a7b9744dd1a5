"""Training images and class names -> the OOD score of a model just adapted. It trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fewclip.heads import FeatureSample
from fewclip.heads.linear import Floats
from fewclip.methods.base import Method
from fewclip.ood import NEGATIVE_LABELS, OODScore, TextFeatures, ood_parts
from fewclip.tokenizer import Tokenizer


def fit_ood_score(
    method: Method,
    zero_shot: Method,
    phrases: Sequence[str],
    sample: FeatureSample,
    held: FeatureSample | None,
    unseen: Mapping[str, Floats] | None = None,
) -> OODScore:
    """The OOD score of `method`'s towers.

    Args:
        method, zero_shot: the adapted method and its backbone before, with classes of `phrases`.
        sample: training images on the method's image tower, plain view first.
        held: validation images on it; None without any.
        unseen: in their place, `OODScore.terms` of training images by towers tuned without them;
            not used with a frozen tower, which has seen none of its images.
    """
    tuned = method.trains_images
    return OODScore.fit(
        parts_of(sample),
        sample.labels,
        texts=_texts(method, zero_shot, phrases, sample),
        tuned=parts_of(held) if tuned and held is not None else None,
        unseen=dict(unseen) if tuned and held is None and unseen else None,
    )


def parts_of(sample: FeatureSample) -> tuple[np.ndarray, ...]:
    """`ood_parts` of the images as they are classified."""
    return ood_parts(sample.features, sample.intermediate)


def _texts(
    method: Method, zero_shot: Method, phrases: Sequence[str], sample: FeatureSample
) -> TextFeatures:
    """Text features of the tuned text tower if the image tower was tuned too: then images kept out
    of training give the scale. With a frozen image tower the training images do, so their classes'
    names must be encoded as before tuning."""
    negatives = Tokenizer.from_open_clip().frequent_words(NEGATIVE_LABELS)
    plain = method if method.trains_images else zero_shot
    image = torch.from_numpy(sample.features.mean(0, keepdims=True))
    named = _rows(method, negatives, image)
    bias = method.backbone.logit_bias
    return TextFeatures(
        classes=_rows(plain, phrases, image),
        negatives=named if plain is method else _rows(plain, negatives, image),
        named_negatives=named,
        bias=np.array([0.0 if bias is None else float(bias)], np.float32),
    )


def _rows(method: Method, phrases: Sequence[str], image: torch.Tensor) -> np.ndarray:
    """(M, D) float16 of `TextFeatures`; `image` (1, D) is used where the text depends on it."""
    with torch.inference_mode():
        embeddings = method.class_embeddings(phrases)
        text = method.text_for(embeddings, image.to(method.backbone.device))
        rows = method.backbone.logit_scale * torch.nn.functional.normalize(
            text.reshape(-1, text.shape[-1]).float(), dim=-1
        )
    found: np.ndarray = rows.cpu().numpy().astype(np.float16)
    return found
