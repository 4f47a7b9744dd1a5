"""The tuned model: predict, evaluate, edit the class set, save, load. Training is elsewhere.

A Classifier never changes: `add_classes` and its like return a new one that shares the weights.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fewclip import artifact, decide
from fewclip import class_set as class_sets
from fewclip.backbone import load_backbone, resolve_device
from fewclip.class_set import Phrases, read_phrases
from fewclip.contract import WEIGHTS_FILE, Calibration, Card, HeadSpec
from fewclip.errors import ArtifactError, BackboneError, OptionError
from fewclip.methods import registry
from fewclip.methods.base import Method
from fewclip.ood import OODScore, join_ood_features
from fewclip.preprocess import Image, as_list, preprocess

if TYPE_CHECKING:
    from fewclip.backbone import Backbone
    from fewclip.report import Report
    from fewclip_export import ExportReport

BATCH = 64
TEMPLATE = "a photo of a {}."


class Classifier:
    """A method, the classes it answers with, and the card that says both.

    Args:
        method: trained, or zero-shot.
        card: its contract; `card.classes` are the labels, in the order of every logit axis.
        ood_score: what the training images looked like; None for a model that saw none.
        validation: images and labels kept out of training, when this process has them; an export
            proves itself on them.
    """

    def __init__(
        self,
        method: Method,
        card: Card,
        *,
        ood_score: OODScore | None = None,
        validation: Sequence[tuple[Image, str]] = (),
    ) -> None:
        self.method = method.eval()
        self.card = card
        self.ood_score = ood_score
        self.validation = tuple(validation)
        with torch.inference_mode():
            self._class_embeddings = method.class_embeddings(
                [card.phrases[label] for label in card.classes]
            )

    @property
    def backbone(self) -> Backbone:
        return self.method.backbone

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels, in the order of every class axis."""
        return self.card.classes

    def __repr__(self) -> str:
        return (
            f"Classifier({self.card.method} on {self.card.backbone['name']}, "
            f"{len(self.classes)} classes)"
        )

    # ---- answers -----------------------------------------------------------------------------

    def predict(self, images: Image | Sequence[Image], top_k: int = 5) -> list[decide.Prediction]:
        """One Prediction per image, in order.

        Args:
            images: paths, bytes, PIL images or RGB uint8 arrays; a single one is a list of one.
            top_k: how many classes each Prediction names.

        Raises:
            ImageError: an image cannot be read.
        """
        itm, cat, ood_score = self.model_outputs(images)
        head, calibration = self.card.head, self.card.calibration
        return decide.decide(itm, cat, self.classes, head, calibration, top_k, ood_score)

    def predict_proba(self, images: Image | Sequence[Image]) -> np.ndarray:
        """(N, C) float64 calibrated probabilities; rows sum to 1."""
        itm, cat = self.logits(images)
        return decide.probabilities(itm, cat, self.card.head, self.card.calibration.temperature)

    def logits(
        self, images: Image | Sequence[Image] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """ITM logits (N, C) and, with DePT, CAT logits (N, C_trained), float32, not calibrated.

        Args:
            images: as `predict`, or an already preprocessed (N, 3, H, W) float32 array.
        """
        return self.model_outputs(images)[:2]

    def model_outputs(self, images: Image | Sequence[Image] | np.ndarray) -> decide.ModelOutputs:
        """All that `decide` needs to answer for N images.

        Args:
            images: as `predict`, or an already preprocessed (N, 3, H, W) float32 array.
        """
        itm, cat = [np.zeros((0, len(self.classes)), np.float32)], []
        seen = [np.zeros(0)]
        for pixels in self._batches(images):
            with torch.inference_mode():
                features, intermediate = self.method.features_and_intermediate(pixels)
                one, two = self.method.logits(features, self._class_embeddings)
            itm.append(one.float().cpu().numpy())
            if two is not None:
                cat.append(two.float().cpu().numpy())
            if self.ood_score is not None:
                seen.append(self.ood_score.score(_ood_features(features, intermediate)))
        return decide.ModelOutputs(
            np.concatenate(itm),
            np.concatenate(cat) if cat else None,
            np.concatenate(seen) if self.ood_score is not None else None,
        )

    def embed(self, images: Image | Sequence[Image] | np.ndarray) -> np.ndarray:
        """(N, D) float32 L2-normalised image features."""
        parts = [np.zeros((0, self.backbone.embed_dim), np.float32)]
        for pixels in self._batches(images):
            with torch.inference_mode():
                features = torch.nn.functional.normalize(self.method.image_features(pixels), dim=-1)
            parts.append(features.float().cpu().numpy())
        return np.concatenate(parts)

    def ood_features(self, images: Image | Sequence[Image] | np.ndarray) -> np.ndarray:
        """(N, L) float32 of N >= 1 images: what `OODScore` is learned from and judges by."""
        parts = []
        for pixels in self._batches(images):
            with torch.inference_mode():
                parts.append(_ood_features(*self.method.features_and_intermediate(pixels)))
        return np.concatenate(parts)

    def evaluate(self, data: Any) -> Report:
        """Accuracy, macro F1, per class, confusion and calibration on labelled images.

        Args:
            data: in any of the forms that `adapt` takes; images of classes that this classifier
                does not know are left out and reported.

        Raises:
            ClassNameError: none of the labels is among the classes.
            DataError: nothing to evaluate on.
        """
        from fewclip.evaluation import evaluate

        return evaluate(self, data)

    def _batches(self, images: Any) -> Any:
        """(n, 3, H, W) tensors on the model's device."""
        if not isinstance(images, np.ndarray) or images.ndim != 4:
            images = as_list(images)
        size = min(BATCH, self.backbone.images_at_once)
        for first in range(0, len(images), size):
            part = images[first : first + size]
            if not isinstance(part, np.ndarray):
                part = preprocess(part, self.card.preprocessing)
            yield torch.from_numpy(np.ascontiguousarray(part)).to(self.backbone.device)

    # ---- the class set -----------------------------------------------------------------------

    def with_classes(self, names: Phrases) -> Classifier:
        """The same model over exactly these classes, in this order; no training.

        Args:
            names: labels, or {label: phrase}. Classes seen in training keep what they learned;
                others are told by their names alone.

        Raises:
            ClassNameError: no name, an empty, doubled or too long one.
        """
        return self._with_card(class_sets.with_classes(self.card, names))

    def add_classes(self, names: Phrases) -> Classifier:
        """The same model that also knows these classes, by their names; no training."""
        return self._with_card(class_sets.add_classes(self.card, names))

    def remove_classes(self, names: str | Sequence[str]) -> Classifier:
        """The same model without these classes."""
        return self._with_card(class_sets.remove_classes(self.card, names))

    def rename_classes(self, names: Mapping[str, str]) -> Classifier:
        """The same model answering with other labels: {old: new}; phrases stay as they are."""
        return self._with_card(class_sets.rename_classes(self.card, names))

    def set_unknown_threshold(self, threshold: float | None) -> Classifier:
        """The same model with another threshold for `known`; None accepts everything."""
        calibration = dataclasses.replace(self.card.calibration, threshold=threshold)
        same = copy.copy(self)
        same.card = dataclasses.replace(self.card, calibration=calibration)
        return same

    def _with_card(self, card: Card) -> Classifier:
        return Classifier(self.method, card, ood_score=self.ood_score, validation=self.validation)

    # ---- folders -----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model folder, whole or not at all.

        Raises:
            InputError: something stands there already and `overwrite` is False.
        """
        from safetensors.torch import save_file

        from fewclip.readme import model_card

        tensors: dict[str, torch.Tensor] = {}
        tensors |= {f"trained/{k}": v for k, v in self.method.trained_parameters().items()}
        tensors |= {f"state/{k}": v for k, v in self.method.state().items()}
        tensors["logit_scale"] = self.backbone.logit_scale
        if self.ood_score is not None:
            tensors["ood_score/whiten"] = torch.from_numpy(self.ood_score.whiten)
            tensors["ood_score/means"] = torch.from_numpy(self.ood_score.means)
        plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        card = dataclasses.replace(self.card, name=Path(path).resolve().name)

        def fill(folder: Path) -> Card:
            save_file(plain, folder / WEIGHTS_FILE, metadata={"format": "pt"})
            (folder / "README.md").write_text(model_card(card), "utf-8")
            return card

        artifact.write_folder(Path(path), fill, overwrite=overwrite)

    def export_onnx(
        self, path: str | os.PathLike[str], precision: str = "fp32", **options: Any
    ) -> ExportReport:
        """Write the ONNX folder, proven to answer as this model does.

        Args:
            precision: "fp32", "fp16" or "int8".
            options: of `fewclip_export.export`.

        Raises:
            GateError: the exported model answers differently; nothing was written.
            MissingExtraError: the 'export' extra is not installed.
        """
        from fewclip_export import export

        return export(self, path, precision=precision, **options)


def _ood_features(features: torch.Tensor, intermediate: torch.Tensor | None) -> np.ndarray:
    """Both parts before normalisation, (B, D) and (B, w) -> (B, L) float32."""

    def unit(x: torch.Tensor) -> np.ndarray:
        length_one: np.ndarray = torch.nn.functional.normalize(x.float(), dim=-1).cpu().numpy()
        return length_one

    return join_ood_features(unit(features), None if intermediate is None else unit(intermediate))


def check_template(template: str) -> str:
    """A template holds exactly one `{}`."""
    if template.count("{}") != 1:
        raise OptionError(f"a template needs exactly one {{}} for the class, got {template!r}")
    return template


def new_card(
    method: Method,
    name: str,
    options: Mapping[str, Any],
    phrases: Mapping[str, str],
    **fields: Any,
) -> Card:
    """The card of a classifier fresh from training, or of zero-shot."""
    from fewclip import __version__

    backbone = method.backbone
    seen = "phrases" in fields.get("training", {})
    return Card(
        kind="model",
        name=name,
        classes=tuple(phrases),
        phrases=dict(phrases),
        template=method.template,
        preprocessing=backbone.preprocess,
        method=name,
        options=dict(options),
        backbone={
            "name": backbone.name,
            "hash": backbone.hash,
            "embed_dim": backbone.embed_dim,
            "context_length": backbone.context_length,
        },
        head=HeadSpec(
            logit_scale=float(backbone.logit_scale),
            columns=tuple(range(len(phrases))) if seen else (-1,) * len(phrases),
            dept_weight=options.get("dept_weight"),
        ),
        created=artifact.now_utc(),
        fewclip_version=__version__,
        **fields,
    )


def zero_shot(
    classes: Phrases,
    *,
    backbone: str | os.PathLike[str] = "micro",
    template: str = TEMPLATE,
    device: str | torch.device = "auto",
) -> Classifier:
    """A classifier before any training: class names alone.

    Args:
        classes: labels, or {label: phrase}.

    Raises:
        ClassNameError: no, empty, doubled or too long names.
        BackboneError: the backbone is unknown, unsupported or out of reach.
    """
    phrases = read_phrases(classes)
    tower = load_backbone(backbone, resolve_device(device))
    return zero_shot_on(tower, phrases, check_template(template))


def zero_shot_on(backbone: Backbone, phrases: Mapping[str, str], template: str) -> Classifier:
    """`zero_shot` on a backbone that is loaded already."""
    method = registry.build(
        "zero-shot",
        backbone,
        registry.make_options("zero-shot", {}),
        template=template,
        phrases=list(phrases.values()),
        generator=torch.Generator(),
    )
    card = new_card(
        method, "zero-shot", {}, phrases, calibration=Calibration(), seed=0, precision="fp32"
    )
    return Classifier(method, card)


def load(path: str | os.PathLike[str], *, device: str | torch.device = "auto") -> Classifier:
    """A saved model.

    Raises:
        ArtifactError: no model folder, or one that was changed since it was written.
        FormatVersionError: written by a version this one does not know.
        BackboneError: its backbone cannot be loaded.
    """
    from safetensors.torch import load_file

    card = artifact.read_card(path)
    if card.kind != "model":
        raise ArtifactError(
            f"{path} is an exported model; open it with fewclip.runtime.OnnxClassifier"
        )
    backbone = load_backbone(str(card.backbone["name"]), resolve_device(device))
    if backbone.hash != card.backbone["hash"]:
        raise BackboneError(
            f"{path} was trained on another version of backbone {backbone.name!r}; "
            "restore those weights, or adapt again"
        )
    method = registry.build(
        card.method,
        backbone,
        registry.make_options(card.method, card.options),
        template=card.template,
        phrases=list(card.training.get("phrases", card.phrases).values()),
        generator=torch.Generator(),
    )
    tensors = load_file(Path(path) / WEIGHTS_FILE)
    try:
        with torch.no_grad():
            for name, parameter in method.trained_parameters().items():
                parameter.copy_(tensors[f"trained/{name}"])
    except (KeyError, RuntimeError) as error:
        raise ArtifactError(
            f"{path} does not hold what its card says ({error}); it was written by a version of "
            f"fewclip whose {card.method} differs; adapt again"
        ) from error
    state = {k.removeprefix("state/"): v for k, v in tensors.items() if k.startswith("state/")}
    method.load_state({k: v.to(backbone.device) for k, v in state.items()})
    ood_score = None
    if "ood_score/means" in tensors:
        parts = (tensors[f"ood_score/{part}"].numpy() for part in ("whiten", "means"))
        ood_score = OODScore(*parts)
    return Classifier(method, card, ood_score=ood_score)
