"""PromptSRC: independent prompts in both towers, held close to the frozen model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fewclip.backbone import ClassPrompts
from fewclip.methods.base import Inputs, MethodOptions, Outputs, cosine_logits
from fewclip.methods.prompting.coop import CoOp, CoOpOptions
from fewclip.methods.prompting.prompts import DeepOptions, deep_prompts, prompted_image_features


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptSRCOptions(DeepOptions, CoOpOptions):
    """Defaults of the Skip Tuning code's base-to-new runs.

    Attributes:
        n_image_ctx: prompts of the image tower.
        text_weight, image_weight: of the L1 distances to the frozen features.
        average_mean, average_std: final parameters, DePT's head included, are averages over epochs,
            counted from 1, with Gaussian weights of this mean and deviation.
        templates: prompts with one `{}` whose frozen text features are averaged; empty for CLIP's
            80 ImageNet templates.
    """

    epochs: int = 20
    lr: float = 0.0025
    n_ctx: int = 4
    n_image_ctx: int = 4
    context: str = "a photo of a"
    text_weight: float = 25.0
    image_weight: float = 10.0
    average_mean: float = 15.0
    average_std: float = 1.0
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = isinstance(self.n_image_ctx, int) and self.n_image_ctx >= 1
        self.check(whole, "n_image_ctx", "a whole number >= 1")
        for field in ("text_weight", "image_weight"):
            self.check(getattr(self, field) >= 0, field, "a number >= 0")
        self.check(self.average_std > 0, "average_std", "a number > 0")
        one_each = all(str(t).count("{}") == 1 for t in self.templates)
        self.check(one_each, "templates", "a list of prompts with one {} each")
        object.__setattr__(self, "templates", tuple(self.templates))


class PromptSRC(CoOp):
    """Khattak, Wasim, Naseer, Khan, Yang, Khan, "Self-regulating Prompts: Foundational Model
    Adaptation without Forgetting", ICCV 2023, arXiv 2307.06948.

    Cross-entropy + 25 * L1(t, t0) + 10 * L1(v, v0) + KL(zero-shot || tuned), features normalised,
    both L1 and the KL divided by their number of entries. The templates' features are averaged
    before normalisation. Both towers frozen.
    """

    name: ClassVar[str] = "promptsrc"
    Options: ClassVar[type[MethodOptions]] = PromptSRCOptions
    trains_images = True
    frozen_images: bool = False

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        backbone, options = self.backbone, self.options
        image_depth, text_depth = options.depths(backbone)
        self.text_prompts = deep_prompts(
            text_depth - 1, len(self.context), backbone.text_width, backbone, generator
        )
        self.image_prompts = deep_prompts(
            image_depth, options.n_image_ctx, backbone.image_width, backbone, generator
        )

    def build_state(self) -> None:
        self.average = {n: torch.zeros_like(p) for n, p in self.own_parameters().items()}

    @torch.no_grad()
    def setup(self, phrases: Sequence[str]) -> None:
        super().setup(phrases)
        templates = self.options.templates or imagenet_templates()
        frozen = []
        for template in templates:
            prompts = self.backbone.tokenize([template.replace("{}", p) for p in phrases])
            frozen.append(self.frozen_text_features(prompts))
        self.zero_shot = F.normalize(torch.stack(frozen).mean(0), dim=-1)

    def frozen_inputs(self, pixels: Tensor) -> Inputs:
        """What enters block 0, and the frozen tower's features."""
        embedded = self.backbone.image_embed(pixels)
        return embedded, self.backbone.image_features(embedded)

    def outputs(self, inputs: Inputs, labels: Tensor) -> Outputs:
        image = prompted_image_features(self.backbone, inputs[0], list(self.image_prompts))
        return Outputs(image, self.all_text_features(self.prompts), labels)

    def regularization_loss(self, outputs: Outputs, inputs: Inputs) -> dict[str, Tensor]:
        scale = self.backbone.logit_scale
        image, text = F.normalize(outputs.image, dim=-1), F.normalize(outputs.text, dim=-1)
        tuned = cosine_logits(outputs.image, outputs.text, scale).log_softmax(-1)
        frozen = cosine_logits(inputs[1], self.zero_shot, scale).log_softmax(-1)
        kl = F.kl_div(tuned, frozen, reduction="sum", log_target=True) / tuned.numel()
        return {
            "text": self.options.text_weight * F.l1_loss(text, self.zero_shot),
            "image": self.options.image_weight * F.l1_loss(image, F.normalize(inputs[1], dim=-1)),
            "kl": kl,
        }

    @torch.no_grad()
    def after_epoch(self, epoch: int, epochs: int) -> None:
        weight = gaussian_weights(epochs, self.options.average_mean, self.options.average_std)
        for name, parameter in self.own_parameters().items():
            self.average[name] += weight[epoch] * parameter
            if epoch == epochs - 1:
                parameter.copy_(self.average[name])

    def state(self) -> dict[str, Tensor]:
        return {f"average.{name}": value for name, value in self.average.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.average = {n.removeprefix("average."): v.clone() for n, v in state.items()}

    def image_features(self, pixels: Tensor, taps: dict[int, Tensor] | None = None) -> Tensor:
        embedded = self.backbone.image_embed(pixels)
        return prompted_image_features(self.backbone, embedded, list(self.image_prompts), taps)

    def text_features(self, prompts: ClassPrompts) -> Tensor:
        hidden = self.backbone.text_embed(prompts, self.context)
        return self.backbone.text_features(hidden, deep=list(self.text_prompts))

    def text_from_tokens(self, tokens: Tensor) -> Tensor:
        return self.backbone.encode_tokens(tokens, self.context, list(self.text_prompts))


def gaussian_weights(epochs: int, mean: float, std: float) -> list[float]:
    """Weights of epochs 1 .. `epochs`, summing to 1; as a softmax, so a mean far beyond the
    last epoch does not underflow to 0 / 0."""
    at = torch.arange(1, epochs + 1, dtype=torch.float64)
    weights: list[float] = torch.softmax(-(((at - mean) / std) ** 2) / 2, 0).tolist()
    return weights


def imagenet_templates() -> list[str]:
    """CLIP's 80 prompts for ImageNet, with `{}` for the name."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
