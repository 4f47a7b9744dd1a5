"""What a method is: trainable parameters, a loss for a batch, an inference head. Never a loop.

A method is one file in this package. Its frozen `Options` dataclass holds its hyper-parameters;
the trainer in `fewclip.training.loop` asks for parameter groups, how to draw batches, the frozen
part of the forward pass (`frozen_inputs`, computed once per epoch in large batches), and a loss.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewclip.backbone import Backbone, ClassPrompts
from fewclip.errors import OptionError
from fewclip.methods.class_blocks import text_in_blocks
from fewclip.methods.dept import DePTHead, DePTOptions
from fewclip.preprocess import CROP_AREA

Inputs = tuple[Tensor, ...]
# Options that the training loop alone reads.
LOOP_OPTIONS = (
    "epochs", "batch_size", "warmup_epochs", "warmup_lr", "momentum", "weight_decay",
)  # fmt: skip
MAX_CTX = 256  # learned vectors per block at most: untrusted cards say how many to allocate


# Annotation of an option -> types it accepts, and their name. Other options check themselves.
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """Hyper-parameters that every method has.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step.
        warmup_epochs, warmup_lr: constant rate of the first epochs; 0 epochs for none.
        momentum, weight_decay: of SGD.
        crop_area: smallest share of an image that a training crop keeps; the published 0.08 suits
            photos of things, not marks that fill the picture or sit in a corner of it.
        flip: whether training images are mirrored half of the time; not for letters.
        views: augmentations per image that epochs cycle through, each encoded once by a frozen
            image tower; 0, as published, for a fresh one in every epoch.
    """

    epochs: int = 10
    batch_size: int = 4
    warmup_epochs: int = 1
    warmup_lr: float = 1e-5
    momentum: float = 0.9
    weight_decay: float = 5e-4
    crop_area: float = CROP_AREA
    flip: bool = True
    views: int = 0

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            kinds, wanted = _TYPES.get(str(each.type), ((), ""))
            value = getattr(self, each.name)
            good = isinstance(value, kinds) and isinstance(value, bool) == (bool in kinds)
            self.check(not kinds or good, each.name, wanted)
        for field, low in (("epochs", 1), ("batch_size", 1), ("warmup_epochs", 0), ("views", 0)):
            value = getattr(self, field)
            self.check(isinstance(value, int) and value >= low, field, f"a whole number >= {low}")
        for field in (f.name for f in dataclasses.fields(self) if f.name.endswith("_ctx")):
            value = getattr(self, field)
            self.check(value <= MAX_CTX, field, f"a whole number from 1 to {MAX_CTX}")
        rates = [f.name for f in dataclasses.fields(self) if f.name.endswith("lr")]
        for field in (*rates, "weight_decay"):
            self.check(getattr(self, field) >= 0, field, "a number >= 0")
        self.check(0 <= self.momentum < 1, "momentum", "in [0, 1)")
        self.check(0 < self.crop_area <= 1, "crop_area", "in (0, 1]")

    def check(self, holds: bool, field: str, wanted: str) -> None:
        """Raise OptionError naming the field when `holds` is False."""
        if not holds:
            raise OptionError(f"option {field} must be {wanted}, got {getattr(self, field)!r}")


@dataclasses.dataclass(frozen=True)
class ParamGroup:
    """Parameters that share a learning rate; names are stable because saved models use them."""

    params: Mapping[str, nn.Parameter]
    lr: float


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """How batches are drawn: `size` images, all of one class where `same_class`."""

    size: int
    same_class: bool = False


@dataclasses.dataclass(frozen=True)
class Outputs:
    """A batch on its way to the loss, features before L2 normalisation.

    Attributes:
        image: (B, D).
        text: (M, D), or (B, M, D) where text features depend on the image.
        labels: (B,) int64 into M; a method that drops classes renumbers them.
    """

    image: Tensor
    text: Tensor
    labels: Tensor


@dataclasses.dataclass(frozen=True)
class ClassEmbeddings:
    """A class set ready for inference: text features (M, D), or the prompts where they depend on
    the image."""

    prompts: ClassPrompts
    features: Tensor | None


def float32_arithmetic(device: torch.device) -> torch.autocast:
    """For losses and rankings under autocast: they cost little, and bf16 has three digits."""
    return torch.autocast(device.type, enabled=False)


def widened(x: Tensor) -> Tensor:
    """bf16 -> float32; anything else as it is."""
    return x.float() if x.dtype == torch.bfloat16 else x


def cosine_logits(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """s * cos: image (B, D), text (M, D) or (B, M, D) -> (B, M)."""
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    if text.dim() == 3:
        return scale * torch.einsum("bd,bmd->bm", image, text)
    return scale * image @ text.T


class Method(nn.Module):
    """Base of all methods: frozen towers, a plain template, no training.

    Args:
        backbone: loaded for this method alone; a method may train its weights.
        options: this method's `Options`.
        template: prompt with one `{}`.
        n_classes: classes of the training set.
        generator: the only source of randomness for initial values.
        dept: options of a DePT head beside the method; None for none.

    Attributes:
        dept: that head, trained along with the method.
        dept_weight: a head's share of the answer; None without one.
    """

    name: ClassVar[str]
    Options: ClassVar[type[MethodOptions]] = MethodOptions
    trains: ClassVar[bool] = True
    fits: ClassVar[bool] = False  # has a `LinearHead`, which is computed without training
    trains_images: bool = False  # image features move away from the frozen tower's
    # `frozen_inputs` are features, so those of an image's `views` can be cached.
    frozen_images: bool = False
    dept_ready: ClassVar[bool] = True  # prompt and adapter methods
    tunes_towers_only: ClassVar[bool] = False  # the result is a plain CLIP that others can load
    needs_blocks: ClassVar[bool] = True  # reaches into the towers; False where features are enough
    per_image_text: bool = False

    @classmethod
    def reads(cls, option: str) -> bool:
        """Whether an option of `Options` changes anything for this method."""
        if option in LOOP_OPTIONS:
            return cls.trains
        if option == "views":
            return cls.frozen_images or cls.fits
        return cls.trains or cls.fits

    def __init__(
        self,
        backbone: Backbone,
        options: Any,
        *,
        template: str,
        n_classes: int,
        generator: torch.Generator,
        dept: DePTOptions | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.options = options
        self.template = template
        self.n_classes = n_classes
        self.dept_weight: float | None = None if dept is None else dept.dept_weight
        self.build(generator)
        self.dept: DePTHead | None = None
        if dept is not None:
            self.dept = DePTHead(
                dept,
                width=backbone.embed_dim,
                n_classes=n_classes,
                generator=generator,
                device=backbone.device,
            )
        self.build_state()

    def build(self, generator: torch.Generator) -> None:
        """Create the method's own parameters, with initial values from `generator` alone."""

    def build_state(self) -> None:
        """Create what training keeps besides parameters, all of which, DePT's too, exist by now."""

    # ---- training ----------------------------------------------------------------------------

    def setup(self, phrases: Sequence[str]) -> None:
        """Compute once what training needs from the class set: prompts, frozen text features."""
        self.prompts = self.tokenize(phrases)

    def param_groups(self) -> list[ParamGroup]:
        """Trainable parameters by learning rate."""
        own = self.own_parameters()
        head = {name: own.pop(name) for name in list(own) if name.startswith("dept.")}
        groups = [ParamGroup(own, self.options.lr)] if own else []
        if self.dept is not None:
            groups.append(ParamGroup(head, self.dept.learning_rate(self.options.lr)))
        return groups

    def batch_plan(self, shots: int) -> BatchPlan:
        """`shots`: images of the largest class."""
        return BatchPlan(self.options.batch_size)

    def frozen_inputs(self, pixels: Tensor) -> Inputs:
        """(B, 3, H, W) -> what `outputs` takes; computed without gradient, once per epoch."""
        return (self.backbone.encode_image(pixels),)

    def outputs(self, inputs: Inputs, labels: Tensor) -> Outputs:
        """Features of a batch and of the classes it is compared with."""
        raise NotImplementedError

    def regularization_loss(self, outputs: Outputs, inputs: Inputs) -> dict[str, Tensor]:
        """Named loss terms besides the cross-entropy."""
        return {}

    def loss(self, inputs: Inputs, labels: Tensor) -> dict[str, Tensor]:
        """Named terms; their sum is minimised. labels (B,) int64."""
        out = self.outputs(inputs, labels)
        with float32_arithmetic(labels.device):
            wide = Outputs(widened(out.image), widened(out.text), out.labels)
            return self.loss_terms(wide, tuple(widened(x) for x in inputs))

    def loss_terms(self, outputs: Outputs, inputs: Inputs) -> dict[str, Tensor]:
        """The loss of features; float32 whatever they were computed in."""
        logits = cosine_logits(outputs.image, outputs.text, self.backbone.logit_scale)
        ce = F.cross_entropy(logits, outputs.labels)
        terms = {"ce": ce}
        if self.dept is not None:
            terms = self.dept.loss_terms(ce, outputs.image, outputs.text, outputs.labels)
        return {**terms, **self.regularization_loss(outputs, inputs)}

    def after_epoch(self, epoch: int, epochs: int) -> None:
        """Called after epoch `epoch` of 0 .. epochs-1."""

    def after_training(self) -> None:
        """Called once, when the last epoch is done."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs besides the trained parameters."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore `state`'s tensors."""

    # ---- inference ---------------------------------------------------------------------------

    def prompt(self, phrase: str) -> str:
        """The text that is tokenised for a class."""
        return self.template.replace("{}", phrase)

    def tokenize(self, phrases: Sequence[str]) -> ClassPrompts:
        return self.backbone.tokenize([self.prompt(phrase) for phrase in phrases])

    def image_features(self, pixels: Tensor, taps: dict[int, Tensor] | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, D), before L2 normalisation; `taps` as in `Backbone`."""
        return self.backbone.encode_image(pixels, taps)

    def features_and_intermediate(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """`image_features`, and what the OOD score and heads on frozen features read besides.

        Returns:
            Image features (B, D) before L2 normalisation, and `Backbone.intermediate`
            (B, 5 w); None for a tower that has none, such as a ResNet.
        """
        taps = self.backbone.new_taps()
        features = self.image_features(pixels, taps)
        return features, self.backbone.intermediate(taps)

    def text_features(self, prompts: ClassPrompts) -> Tensor:
        """(M, D), before L2 normalisation."""
        return self.backbone.encode_text(prompts)

    def all_text_features(self, prompts: ClassPrompts) -> Tensor:
        """`text_features` of any number of classes, in blocks where they are many."""
        return text_in_blocks(
            self.text_features, prompts, self.parameters(), self.backbone.class_tokens_at_once
        )

    def frozen_text_features(self, prompts: ClassPrompts) -> Tensor:
        """(M, D) of the backbone before tuning, for any number of classes; without gradient."""
        with torch.no_grad():
            return text_in_blocks(
                functools.partial(Method.text_features, self),
                prompts,
                (),
                self.backbone.class_tokens_at_once,
            )

    def text_from_tokens(self, tokens: Tensor) -> Tensor:
        """(n, context) int64 token rows -> (n, D): `text_features` in the form that exports."""
        return self.backbone.encode_tokens(tokens)

    def class_embeddings(self, phrases: Sequence[str]) -> ClassEmbeddings:
        """Any class set, seen in training or not, computed once."""
        prompts = self.tokenize(phrases)
        return ClassEmbeddings(
            prompts, None if self.per_image_text else self.all_text_features(prompts)
        )

    def text_for(self, embeddings: ClassEmbeddings, image: Tensor) -> Tensor:
        """(M, D), or (B, M, D) for image features (B, D)."""
        if embeddings.features is None:
            raise NotImplementedError
        return embeddings.features

    def cat_logits(self, image: Tensor, intermediate: Tensor | None = None) -> Tensor | None:
        """The head over the trained classes: (B, D), (B, 5 w) -> (B, n_classes); None for none."""
        if self.dept is None:
            return None
        logits: Tensor = self.dept(image)
        return logits

    def logits(
        self, image: Tensor, embeddings: ClassEmbeddings, intermediate: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """ITM logits (B, M), and those of the head over the trained classes (B, n_classes).

        Args:
            image, intermediate: of `features_and_intermediate`.
        """
        text = self.text_for(embeddings, image)
        return self.itm_logits(image, text), self.cat_logits(image, intermediate)

    def itm_logits(self, image: Tensor, text: Tensor) -> Tensor:
        """(B, D), (M, D) or (B, M, D) -> (B, M), as the backbone was trained to compare them."""
        logits = cosine_logits(image, text, self.backbone.logit_scale)
        bias = self.backbone.logit_bias
        return logits if bias is None else logits + bias

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters outside the backbone, by attribute; saved models use these names."""
        own = self.named_parameters()
        return {name: p for name, p in own if not name.startswith("backbone.")}

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """All groups' parameters by name."""
        return {name: p for group in self.param_groups() for name, p in group.params.items()}


def tower_parameters(
    backbone: Backbone, image_from: int, text_from: int
) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """(image, text) parameters from the given blocks up: blocks, final norm and projection."""
    clip = backbone.clip

    def pick(
        tower: Any, blocks: Any, start: int, prefix: str, tail: tuple[str, ...]
    ) -> dict[str, nn.Parameter]:
        chosen = {
            f"{prefix}transformer.resblocks.{k}.{n}": p
            for k in range(start, len(blocks))
            for n, p in blocks[k].named_parameters()
        }
        own = dict(tower.named_parameters())
        chosen |= {f"{prefix}{n}": own[n] for n in own if n.split(".")[0] in tail}
        return chosen

    image = pick(
        clip.visual, clip.visual.transformer.resblocks, image_from, "visual.", ("ln_post", "proj")
    )
    text = pick(clip, clip.transformer.resblocks, text_from, "", ("ln_final", "text_projection"))
    return image, text
