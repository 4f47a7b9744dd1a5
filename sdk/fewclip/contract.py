"""The card: what a saved or exported model says about itself. Plain data, no torch, no file access.

`card.json` carries everything but the weights that turns pixels into an answer: classes and
phrases, preprocessing, the head's constants, calibration. Training and serving both build their
behaviour from it, so they cannot disagree.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fewclip.errors import ArtifactError, FormatVersionError
from fewclip.model_folder import card_schema
from fewclip.model_folder.card_facts import BackboneFacts, DataFacts, MetricFacts, TrainingFacts

FORMAT_VERSION = 5
CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
IMAGE_GRAPH = "image.onnx"
TEXT_GRAPH = "text.onnx"
TOKENIZER_FILE = "tokenizer.json"
# Files of a backbone's folder, which open_clip can load too.
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"

# Far beyond any backbone: bounds what a broken or forged card can ask for.
MAX_SIDE = 4096  # pixels
MAX_CONTEXT = 4096  # tokens
MAX_SCALE = 1e6
MAX_CLASSES = 100_000
TEMPERATURES = (1e-3, 1e3)

_SHA256 = re.compile("[0-9a-f]{64}")

# Tensor names of the exported graphs.
IMAGE_INPUT = "image"  # (batch, 3, H, W) float32
CLASSES_INPUT = "classes"  # (M, D) float32, L2-normalised text features
FEATURES_OUTPUT = "features"  # (batch, D) float32, L2-normalised
ITM_OUTPUT = "logits_itm"  # (batch, M) float32, already scaled by exp(logit_scale)
CAT_OUTPUT = "logits_cat"  # (batch, M_trained) float32, DePT and heads on frozen features
INTERMEDIATE_OUTPUT = "intermediate"  # (batch, 5 w) float32, L2-normalised; residual blocks only
TOKENS_INPUT = "tokens"  # (n, context) int64

# Keys of the graphs' metadata; values are JSON, except the arrays: base64 of an npz file.
FORMAT_KEY = "format_version"
CLASSES_KEY = "classes"
PREPROCESSING_KEY = "preprocessing"
ARRAYS_KEY = "arrays"

# Names within the arrays, all float32.
CLASS_FEATURES = "class_features"  # (M, D), what the input `classes` defaults to


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
    interpolation: Annotated[str, Literal["bicubic", "bilinear"]] = "bicubic"
    resize_mode: Annotated[str, Literal["shortest", "squash"]] = "shortest"

    def __post_init__(self) -> None:
        _check(1 <= self.size <= MAX_SIDE, "size", f"from 1 to {MAX_SIDE} pixels", self.size)
        _check(min(self.std) > 0, "std", "three numbers above 0", self.std)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far to trust the answers, as measured on validation images.

    Attributes:
        temperature: divides the log-probabilities; 1.0 when uncalibrated.
        text_temperature: the same for a model with a head that knows none of the current classes,
            so that the text alone decides.
        threshold: an image whose `decide.in_distribution_score` is below it is unknown;
            None accepts everything.
        named_threshold: the threshold as calibrated; an image given a class known by name alone
            has this score when its ITM logit is just high enough to be known.
        ood_center, ood_spread: mean and standard deviation of in-distribution images' OOD scores.
        n: images behind the temperature that took no part in fitting; 0 means uncalibrated.
    """

    temperature: float = 1.0
    text_temperature: float = 1.0
    threshold: float | None = None
    named_threshold: float = 0.0
    ood_center: float = 0.0
    ood_spread: float = 1.0
    n: int = 0

    def __post_init__(self) -> None:
        low, high = TEMPERATURES
        for field in ("temperature", "text_temperature"):
            value = getattr(self, field)
            _check(low <= value <= high, field, f"from {low} to {high}", value)
        for field in ("threshold", "named_threshold", "ood_center"):
            value = getattr(self, field)
            _check(value is None or math.isfinite(value), field, "a finite number", value)
        spread = self.ood_spread
        _check(0 < spread < math.inf, "ood_spread", "a finite number above 0", spread)
        _check(self.n >= 0, "n", "a whole number from 0 on", self.n)

    @property
    def calibrated(self) -> bool:
        return self.n > 0

    def temperature_for(self, head: HeadSpec) -> float:
        """The one for the current classes: the text's if a head knows none of them."""
        text_alone = head.dept_weight is not None and not head.trained
        return self.text_temperature if text_alone else self.temperature


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConformalScores:
    """What prediction sets are computed from (`conformal.py`).

    Attributes:
        kind: "split" (images kept out of training) or "cross" (each scored by the fold of the
            selection that did not train on it).
        scores: for each trained class, in column order, the conformal scores of its calibration
            images, ascending.
    """

    kind: Annotated[str, Literal["split", "cross"]]
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

    def __post_init__(self) -> None:
        scale, weight = self.logit_scale, self.dept_weight
        _check(0 < scale <= MAX_SCALE, "logit_scale", f"above 0 and at most {MAX_SCALE}", scale)
        _check(weight is None or 0 <= weight <= 1, "dept_weight", "in [0, 1]", weight)
        _check(min(self.columns, default=0) >= -1, "columns", "-1 or more", self.columns)

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
        phrases: label -> what replaces the template's `{}` for it.
        template: prompt with one `{}`; the learned context, if there is one, appears in it as
            `X` words.
        backbone: name, hash (sha256 of its weights), context_length, embed_dim ...
        data, metrics, training: how it was made, as plain JSON.
        files: file name -> sha256, for every other file of the folder.
    """

    kind: Annotated[str, Literal["model", "onnx"]]
    name: str
    classes: tuple[str, ...]
    phrases: Mapping[str, str]
    template: str
    preprocessing: Preprocess
    method: str
    options: Mapping[str, Any]
    backbone: Annotated[Mapping[str, Any], BackboneFacts]
    head: HeadSpec
    calibration: Calibration
    seed: int
    precision: Annotated[str, Literal["fp32", "bf16", "fp16", "int8"]]
    data: Annotated[Mapping[str, Any], DataFacts] = dataclasses.field(default_factory=dict)
    metrics: Annotated[Mapping[str, Any], MetricFacts] = dataclasses.field(default_factory=dict)
    training: Annotated[Mapping[str, Any], TrainingFacts] = dataclasses.field(default_factory=dict)
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
        labels, phrases = self.classes, self.phrases
        named = bool(labels) and all(label.strip() for label in labels)
        _check(len(labels) <= MAX_CLASSES, "classes", f"at most {MAX_CLASSES}", len(labels))
        _check(named and len(set(labels)) == len(labels), "classes", "distinct names", labels)
        without = next((label for label in labels if label not in phrases), None)
        _check(without is None, "phrases", "one for each class", without)
        _check(self.template.count("{}") == 1, "template", "a text with one {}", self.template)
        trained = len(self.training.get("phrases", phrases))
        widest = max(self.head.columns)
        _check(widest < trained, "columns", f"below the {trained} trained classes", widest)
        _check(self.seed >= 0, "seed", "a whole number from 0 on", self.seed)
        context = self.backbone.get("context_length", 2)
        _check(2 <= context <= MAX_CONTEXT, "context_length", f"from 2 to {MAX_CONTEXT}", context)
        for name, digest in self.files.items():
            _check(bool(_SHA256.fullmatch(digest)), f"the hash of {name}", "a sha256", digest)

    @property
    def temperature(self) -> float:
        """The calibration's, for the current classes."""
        return self.calibration.temperature_for(self.head)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only."""
        plain = plain_json(dataclasses.asdict(self))
        plain["calibration"]["calibrated"] = self.calibration.calibrated
        return dict(plain)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Card:
        """Read `to_dict`'s output back.

        Raises:
            FormatVersionError: the card has another format version.
            ArtifactError: a field is missing or of the wrong shape.
        """
        version = plain.get("format_version")
        if version != FORMAT_VERSION:
            raise FormatVersionError(
                f"format_version {version!r} is not known here (this fewclip reads "
                f"{FORMAT_VERSION}); update fewclip or save the model again"
            )
        calibration = plain.get("calibration")
        if isinstance(calibration, Mapping):  # derived, for people
            calibration = {k: v for k, v in calibration.items() if k != "calibrated"}
            plain = {**plain, "calibration": calibration}
        card: Card = card_schema.read(cls, plain, "card")
        return card


def _check(holds: bool, field: str, wanted: str, value: Any) -> None:
    if not holds:
        raise ArtifactError(
            f"{field} must be {wanted}, not {card_schema.shown(repr(value))}; "
            "save or export the model again"
        )


def plain_json(value: Any) -> Any:
    """JSON's own types: numpy numbers become Python's, and non-finite ones become null."""
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(v) for v in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return value
