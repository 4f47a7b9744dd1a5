"""The tuned model in torch: model outputs, save, load. What it shares with exports is in `base`."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch

from fewclip import artifact, decide
from fewclip.backbone import load_backbone, resolve_device, write_open_clip
from fewclip.base import BaseClassifier, Floats
from fewclip.class_set import Phrases, read_phrases
from fewclip.contract import Calibration, Card, HeadSpec
from fewclip.errors import ArtifactError, BackboneError, OptionError
from fewclip.methods import registry
from fewclip.methods.base import ClassEmbeddings, Method
from fewclip.model_folder import saved_weights
from fewclip.ood import OODScore, ood_parts
from fewclip.preprocess import Image, Images, Inputs

if TYPE_CHECKING:
    from fewclip.backbone import Backbone
    from fewclip.explain import Question
    from fewclip.explain.explanation import Heat
    from fewclip_export import ExportReport

Float64s = npt.NDArray[np.float64]
Float16s = npt.NDArray[np.float16]

BATCH = 64
TEMPLATE = "a photo of a {}."


class Classifier(BaseClassifier):
    """A method, the classes it answers with, and the card that describes both.

    Args:
        method: trained, or zero-shot.
        card: its contract; `card.classes` are the labels, in the order of every logit axis.
        ood_score: fitted on the training images; None for a model that saw none.
        validation: images and labels kept out of training, if this process has them; the parity of
            an export is checked on them.
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
        self.batch_size = min(BATCH, self.backbone.images_at_once)
        self._class_embeddings = _class_embeddings(method, card)

    @property
    def backbone(self) -> Backbone:
        return self.method.backbone

    def __repr__(self) -> str:
        return (
            f"Classifier({self.card.method} on {self.card.backbone['name']}, "
            f"{len(self.classes)} classes)"
        )

    # ---- answers -----------------------------------------------------------------------------

    def model_outputs(self, images: Images) -> decide.ModelOutputs:
        parts = [self.outputs_of(*encoded) for encoded in self.encoded(images)]
        if not parts:
            nothing = np.zeros((0, len(self.classes)), np.float32)
            none = None if self.ood_score is None else np.zeros(0)
            return decide.ModelOutputs(nothing, None, none, none)
        return decide.ModelOutputs.join(parts)

    def outputs_of(
        self, features: torch.Tensor, intermediate: torch.Tensor | None
    ) -> decide.ModelOutputs:
        """`model_outputs` from `Method.features_and_intermediate`, (B, D) and (B, 5 w)."""
        with torch.inference_mode():
            itm, cat = self.method.logits(features, self._class_embeddings, intermediate)
        logits = _plain(itm), None if cat is None else _plain(cat)
        if self.ood_score is None:
            return decide.ModelOutputs(*logits, None)
        parts = _ood_parts(features, intermediate)
        seen = self.ood_score.score_and_bound(parts, self.card.head.columns)
        return decide.ModelOutputs(*logits, *seen)

    def _outputs_and_parts(
        self, images: Images
    ) -> tuple[decide.ModelOutputs, tuple[Float64s, ...]]:
        outputs, parts = [], []
        for encoded in self.encoded(images):
            outputs.append(self.outputs_of(*encoded))
            parts.append(_ood_parts(*encoded))
        if not outputs:
            return self.model_outputs([]), (np.zeros((0, self.backbone.embed_dim)),)
        joined = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
        return decide.ModelOutputs.join(outputs), joined

    def _training_parts(self) -> tuple[Float16s, ...]:
        return () if self.ood_score is None else self.ood_score.images

    def embed(self, images: Images) -> Floats:
        parts = [np.zeros((0, self.backbone.embed_dim), np.float32)]
        for pixels in self._tensors(images):
            with torch.inference_mode():
                features = torch.nn.functional.normalize(self.method.image_features(pixels), dim=-1)
            parts.append(features.float().cpu().numpy())
        return np.concatenate(parts)

    def _heat(self, inputs: Inputs, question: Question) -> tuple[Heat, str]:
        if not self.backbone.has_blocks:
            return super()._heat(inputs, question)
        from fewclip.explain.relevance import relevance

        temperature = self.card.temperature
        heat = relevance(
            self.method, self._class_embeddings, self.card.head, temperature, inputs, question
        )
        return heat, "attention"

    def encoded(self, images: Images) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """`Method.features_and_intermediate`, batch by batch: what `outputs_of` takes."""
        for pixels in self._tensors(images):
            with torch.inference_mode():
                found = self.method.features_and_intermediate(pixels)
            yield found

    def _tensors(self, images: Images) -> Iterator[torch.Tensor]:
        """(n, 3, size, size) on the model's device."""
        for part in self._batches(images):
            yield torch.from_numpy(part).to(self.backbone.device)

    def _with_card(self, card: Card) -> Self:
        same = copy.copy(self)
        same.card = card
        if _phrases(card) != _phrases(self.card):  # else the embeddings are the same too
            same._class_embeddings = _class_embeddings(self.method, card)
        return same

    # ---- folders -----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model folder, whole or not at all.

        Raises:
            InputError: something is there already and `overwrite` is False.
        """
        from fewclip.model_folder.readme import model_card

        card = dataclasses.replace(self.card, name=Path(path).resolve().name)

        def fill(folder: Path) -> Card:
            saved_weights.write(folder, self.method, self.ood_score)
            (folder / "README.md").write_text(model_card(card), "utf-8")
            return card

        artifact.write_folder(Path(path), fill, overwrite=overwrite)

    def _to_publish(self, scratch: Path) -> tuple[Path, Mapping[str, Path]]:
        """Save the model, and the tuned CLIP for open_clip if nothing else was tuned."""
        self.save(scratch)
        tunes_towers_only = self.method.tunes_towers_only
        beside = write_open_clip(scratch.parent, self.backbone) if tunes_towers_only else {}
        return scratch, beside

    def export_onnx(
        self, path: str | os.PathLike[str], precision: str = "fp32", **options: Any
    ) -> ExportReport:
        """Write the ONNX folder, verified to answer as this model does.

        Args:
            precision: "fp32", "fp16" or "int8".
            options: of `fewclip_export.export`.

        Raises:
            GateError: the exported model answers differently; nothing was written.
            MissingExtraError: the 'export' extra is not installed.
        """
        from fewclip_export import export

        return export(self, path, precision=precision, **options)


def _phrases(card: Card) -> list[str]:
    return [card.phrases[label] for label in card.classes]


def _class_embeddings(method: Method, card: Card) -> ClassEmbeddings:
    with torch.inference_mode():
        return method.class_embeddings(_phrases(card))


def _ood_parts(features: torch.Tensor, intermediate: torch.Tensor | None) -> tuple[Float64s, ...]:
    return ood_parts(_plain(features), None if intermediate is None else _plain(intermediate))


def _plain(x: torch.Tensor) -> Floats:
    """float32 on the CPU."""
    array: Floats = x.float().cpu().numpy()
    return array


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
    """The card of a newly trained or zero-shot classifier."""
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
        options={key: value for key, value in options.items() if method.reads(key)},
        backbone={
            "name": backbone.name,
            "hash": backbone.hash,
            "embed_dim": backbone.embed_dim,
            "context_length": backbone.context_length,
            **({} if backbone.logit_bias is None else {"logit_bias": float(backbone.logit_bias)}),
        },
        head=HeadSpec(
            logit_scale=float(backbone.logit_scale),
            columns=tuple(range(len(phrases))) if seen else (-1,) * len(phrases),
            dept_weight=method.dept_weight,
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
    """A classifier without any training, from class names alone.

    Args:
        classes: labels, or {label: phrase}.

    Raises:
        ClassNameError: there are no names, or one is empty, too long or given twice.
        BackboneError: the backbone is unknown, unsupported or unreachable.
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


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    allow_download: bool = False,
) -> Classifier:
    """Load a saved model.

    Args:
        path: a folder, or "hf://owner/name[@revision]" for one on the Hugging Face Hub.
        allow_download: fetch the backbone that the card names if it is not in the local cache.

    Raises:
        ArtifactError: it is not a model folder, or was changed since it was written.
        FormatVersionError: it has a format that this version does not know.
        HubError: there is no such repository, or it is unreachable and not cached.
        BackboneError: its backbone cannot be loaded.
    """
    from fewclip.hub import local_folder

    folder = local_folder(path)
    card = artifact.read_card(folder)
    if card.kind != "model":
        raise ArtifactError(
            f"{path} is an exported model; open it with fewclip.runtime.OnnxClassifier"
        )
    backbone = load_backbone(
        str(card.backbone["name"]), resolve_device(device), allow_download=allow_download
    )
    if backbone.hash != card.backbone["hash"]:
        raise BackboneError(
            f"{path} was trained on another version of backbone {backbone.name!r}; "
            "restore those weights, or adapt again"
        )
    method, ood_score = saved_weights.read(folder, card, backbone)
    return Classifier(method, card, ood_score=ood_score)
