"""A trained method -> ONNX graphs in float32. It wraps the trained module and rewrites nothing.

`image.onnx` holds the image tower and the heads, `text.onnx` the text tower with learned context
and prompts inside. Other precisions are made from these by `precision.py`.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from fewclip.contract import (
    ARRAYS_KEY,
    CAT_OUTPUT,
    CLASS_FEATURES,
    CLASSES_INPUT,
    CLASSES_KEY,
    FEATURES_OUTPUT,
    FORMAT_KEY,
    IMAGE_INPUT,
    INTERMEDIATE_OUTPUT,
    ITM_OUTPUT,
    PREPROCESSING_KEY,
    TOKENS_INPUT,
    Card,
)
from fewclip.methods.base import Method

Floats = npt.NDArray[np.float32]

OPSET = 20  # later ones write an Attention operator that runs no faster on a CPU
# Features and intermediate features before normalisation: where the tower ends and the heads
# begin. The finished graph does not output them.
RAW, RAW_INTERMEDIATE = CUTS = ("raw", "raw_intermediate")

# One ONNX file cannot hold more than 2 GB; a larger graph has its weights beside it.
ONE_FILE = 1_900_000_000


class ImageGraph(nn.Module):
    """(B, 3, H, W) and text features (M, D) -> the outputs listed in `names`, in that order."""

    def __init__(self, method: Method, *, dept: bool) -> None:
        super().__init__()
        self.method = method
        self.dept = dept
        intermediate = method.backbone.intermediate_width > 0
        self.names = [RAW, FEATURES_OUTPUT, ITM_OUTPUT]
        self.names += [CAT_OUTPUT] if dept else []
        self.names += [RAW_INTERMEDIATE, INTERMEDIATE_OUTPUT] if intermediate else []

    def forward(self, image: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
        raw, intermediate = self.method.features_and_intermediate(image)
        features = _normalised(raw)
        found = [raw, features, self._itm(features, classes)]
        if self.dept:
            cat = self.method.cat_logits(raw, intermediate)
            assert cat is not None
            found.append(cat)
        if intermediate is not None:
            found += [intermediate, _normalised(intermediate)]
        return tuple(found)

    def _itm(self, features: Tensor, classes: Tensor) -> Tensor:
        backbone = self.method.backbone
        logits = backbone.logit_scale * features @ classes.T
        return logits if backbone.logit_bias is None else logits + backbone.logit_bias


class TextGraph(nn.Module):
    """(n, context) int64 tokens -> features (n, D)."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.method.text_from_tokens(tokens)
        return raw, _normalised(raw)


def _normalised(raw: Tensor) -> Tensor:
    """Like F.normalize, whose ONNX form needs shapes; the head should need only `CUTS`."""
    length: Tensor = raw.norm(dim=-1, keepdim=True)
    return raw / length.clamp_min(1e-12)


def export_graphs(
    method: Method, card: Card, tokens: np.ndarray, image: Path, text: Path | None
) -> np.ndarray:
    """Write both graphs in float32, or the image graph alone if the text graph has no path.

    Args:
        method: the trained module; it is not modified.
        tokens: (M, context) int64 of the classes' prompts.
        image, text: files to write; both still output `CUTS`, where `precision.py` splits them.

    Returns:
        (M, D) float32 L2-normalised text features of the classes: the default of `classes`.
    """
    plain = on_cpu(method)
    size = card.preprocessing.size
    with torch.inference_mode():
        rows = torch.from_numpy(tokens)
        features = F.normalize(plain.text_from_tokens(rows), dim=-1).numpy()
    # A batch of 1 would be traced as a constant, and the graph would fail at any other size.
    pixels, few = torch.randn(2, 3, size, size), torch.randn(3, features.shape[1])
    graph = ImageGraph(plain, dept=card.head.dept_weight is not None)
    _export(
        graph,
        {IMAGE_INPUT: pixels, CLASSES_INPUT: few},
        graph.names,
        {IMAGE_INPUT: "batch", CLASSES_INPUT: "classes"},
        image,
    )
    if text is None:
        return features
    two = torch.from_numpy(np.concatenate([tokens, tokens])[:2])
    _export(
        TextGraph(plain), {TOKENS_INPUT: two}, [RAW, FEATURES_OUTPUT], {TOKENS_INPUT: "n"}, text
    )
    return features


def finish_graph(path: Path, card: Card, arrays: Mapping[str, Floats] | None = None) -> None:
    """Remove `CUTS` from the outputs, write the contract into the metadata and check the graph.

    Args:
        arrays: for the image graph: what else answering needs, including `CLASS_FEATURES`, which
            also becomes the default of the `classes` input.
    """
    # Weights in files beside the graph stay there: only the graph itself is read and written.
    model = onnx.load(str(path), load_external_data=False)
    kept = [output for output in model.graph.output if output.name not in CUTS]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    metadata = {
        FORMAT_KEY: str(card.format_version),
        CLASSES_KEY: json.dumps(list(card.classes)),
        PREPROCESSING_KEY: json.dumps(card.to_dict()["preprocessing"]),
    }
    if arrays is not None:
        default = numpy_helper.from_array(arrays[CLASS_FEATURES], CLASSES_INPUT)
        model.graph.initializer.append(default)
        packed = io.BytesIO()
        np.savez(packed, **dict[str, Any](arrays))
        metadata[ARRAYS_KEY] = base64.b64encode(packed.getvalue()).decode()
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    onnx.checker.check_model(str(path), full_check=True)


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write one file, or the graph with its weights beside it if one file can't hold them."""
    large = model.ByteSize() > ONE_FILE
    onnx.save(model, str(path), save_as_external_data=large, location=f"{path.name}.data")


def on_cpu(method: Method) -> Method:
    """The module itself if it is on the CPU, else a copy there: it is never moved."""
    if method.backbone.device.type == "cpu":
        return method
    return copy.deepcopy(method).cpu()


def _export(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, str],
    path: Path,
) -> None:
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    with quiet():
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={name: {0: dynamic[name]} for name in inputs},
            opset_version=OPSET,
            external_data=weights > ONE_FILE,
            dynamo=True,
            verbose=False,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the exporter and the converters warn and log about their own internals."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
