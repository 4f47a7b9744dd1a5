"""The card: what a saved or exported model says about itself. Plain data, no torch, no file access.

`card.json` carries everything that turns pixels into an answer besides the weights: classes and
phrases, preprocessing, the head's constants, calibration. Training and serving both build their
behaviour from it, so that they cannot disagree.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from fewclip.errors import ArtifactError, FormatVersionError

FORMAT_VERSION = 1
CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
IMAGE_GRAPH = "image.onnx"
TEXT_GRAPH = "text.onnx"
TOKENIZER_FILE = "tokenizer.json"

# Tensor names of the exported graphs.
IMAGE_INPUT = "image"  # (batch, 3, H, W) float32
CLASSES_INPUT = "classes"  # (M, D) float32, L2-normalised text features
FEATURES_OUTPUT = "features"  # (batch, D) float32, L2-normalised
ITM_OUTPUT = "logits_itm"  # (batch, M) float32, already scaled by exp(logit_scale)
CAT_OUTPUT = "logits_cat"  # (batch, M_trained) float32, DePT only
INTERMEDIATE_OUTPUT = "intermediate"  # (batch, w) float32, L2-normalised; Skip Tuning only
TOKENS_INPUT = "tokens"  # (n, context) int64

# Keys of the graphs' metadata; values are JSON, but for the arrays: base64 of an npz file.
FORMAT_KEY = "format_version"
CLASSES_KEY = "classes"
PREPROCESSING_KEY = "preprocessing"
ARRAYS_KEY = "arrays"

# Names within the arrays, all float32.
CLASS_FEATURES = "class_features"  # (M, D), what the input `classes` defaults to
WHITEN = "ood_whiten"  # (L, L) and
MEANS = "ood_means"  # (M_trained, L), of a model that saw images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the backbone's input.

    Attributes:
        size: side of the square input, pixels.
        mean, std: per-channel (R, G, B), of values in 0..1.
        interpolation: "bicubic" or "bilinear".
        resize_mode: "shortest" (shorter side to `size`, centre crop) or "squash" (both sides).
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the validation images taught about trust.

    Attributes:
        temperature: divides the log-probabilities; 1.0 when uncalibrated.
        threshold: an image whose `decide.in_distribution_score` lies below it is unknown;
            None accepts everything.
        logit_center, logit_spread: mean and standard deviation of the best ITM logit there.
        ood_center, ood_spread: the same of the ood_score with training images.
        n: validation images behind both numbers; 0 means uncalibrated.
    """

    temperature: float = 1.0
    threshold: float | None = None
    logit_center: float = 0.0
    logit_spread: float = 1.0
    ood_center: float = 0.0
    ood_spread: float = 1.0
    n: int = 0

    @property
    def calibrated(self) -> bool:
        return self.n > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConformalScores:
    """What prediction sets are read from (`conformal.py`).

    Attributes:
        kind: "split" (images kept out of training) or "cross" (each scored by the fold of the
            selection that did not train on it).
        scores: for each trained class, in column order, the conformal scores of its calibration
            images, ascending.
    """

    kind: str
    scores: tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """Constants that turn features into logits and logits into one answer.

    Attributes:
        logit_scale: exp(logit_scale) of the backbone, `s` in s * cos.
        columns: for each current class its column in the CAT head's logits, -1 for a class that
            was added after training. Without DePT the column only says which classes were trained.
        dept_weight: lambda of DePT; None without DePT.
    """

    logit_scale: float
    columns: tuple[int, ...]
    dept_weight: float | None = None

    @property
    def trained(self) -> tuple[int, ...]:
        """Indices of the current classes that took part in training."""
        return tuple(i for i, column in enumerate(self.columns) if column >= 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """The contract of a model folder, `card.json`.

    Attributes:
        kind: "model" (saved, torch) or "onnx" (exported).
        name: for people and metrics.
        classes: labels, in the order of every logit axis.
        phrases: label -> what stands in the template's place for it.
        template: prompt with one `{}`; the learned context, where there is one, stands in it as
            `X` words.
        backbone: name, hash (sha256 of its weights), context_length, embed_dim ...
        data, metrics, training: what happened, as plain JSON.
        files: file name -> sha256 of every other file of the folder.
    """

    kind: str
    name: str
    classes: tuple[str, ...]
    phrases: Mapping[str, str]
    template: str
    preprocessing: Preprocess
    method: str
    options: Mapping[str, Any]
    backbone: Mapping[str, Any]
    head: HeadSpec
    calibration: Calibration
    seed: int
    precision: str
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    export: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    conformal: ConformalScores | None = None
    created: str = ""
    fewclip_version: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if len(self.head.columns) != len(self.classes):
            raise ArtifactError(
                f"the card names {len(self.classes)} classes but its head has "
                f"{len(self.head.columns)} columns; the card was edited or is broken"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only."""
        plain = _plain(dataclasses.asdict(self))
        plain["calibration"]["calibrated"] = self.calibration.calibrated
        return dict(plain)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Card:
        """Read `to_dict`'s output back.

        Raises:
            FormatVersionError: another format version.
            ArtifactError: a field is missing or of the wrong shape.
        """
        version = plain.get("format_version")
        if version != FORMAT_VERSION:
            raise FormatVersionError(
                f"format_version {version!r} is not known here (this fewclip reads "
                f"{FORMAT_VERSION}); update fewclip or save the model again"
            )
        try:
            fields = {f.name: plain[f.name] for f in dataclasses.fields(cls) if f.name in plain}
            fields["classes"] = tuple(fields["classes"])
            pre = fields["preprocessing"]
            fields["preprocessing"] = Preprocess(
                **{**pre, "mean": _triple(pre["mean"]), "std": _triple(pre["std"])}
            )
            head = fields["head"]
            fields["head"] = HeadSpec(**{**head, "columns": tuple(head["columns"])})
            calibration = {k: v for k, v in fields["calibration"].items() if k != "calibrated"}
            fields["calibration"] = Calibration(**calibration)
            fields["conformal"] = _conformal(plain.get("conformal"))
            return cls(**fields)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(
                f"card.json is not a fewclip card ({type(error).__name__}: {error}); "
                "save or export the model again"
            ) from error


def _conformal(plain: Mapping[str, Any] | None) -> ConformalScores | None:
    if plain is None:
        return None
    own = tuple(tuple(float(s) for s in column) for column in plain["scores"])
    return ConformalScores(kind=plain["kind"], scores=own)


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    r, g, b = values
    return float(r), float(g), float(b)


def _plain(value: Any) -> Any:
    """JSON's own types: numpy's numbers become Python's, and what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return value
