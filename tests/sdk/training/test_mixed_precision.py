"""Which arithmetic the hardware's flags choose, and what stays in float32 all the same."""

from __future__ import annotations

import pytest
import torch

from fewclip.backbone import Backbone, load_backbone
from fewclip.errors import OptionError
from fewclip.methods import registry
from fewclip.methods.base import Method, Outputs
from fewclip.methods.skip_tuning import sampled_classes
from fewclip.training import mixed_precision
from fewclip.training.loop import is_loss_read, make_optimizer
from fewclip.training.mixed_precision import (
    autocast,
    fast_bf16,
    frozen_text_in_bf16,
    resolve_precision,
)

CPU = torch.device("cpu")
NAMES = ["cat", "dog", "bird", "a very long name of something"]
INTEL, AMD = "vendor_id : GenuineIntel", "vendor_id : AuthenticAMD"


def prepared(name: str) -> Method:
    method = registry.build(
        name,
        load_backbone("micro"),
        registry.make_options(name, {}),
        template="a photo of a {}.",
        phrases=NAMES,
        generator=torch.Generator().manual_seed(0),
    )
    method.setup(NAMES)
    return method


@pytest.mark.parametrize(
    ("capabilities", "vendor", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, INTEL, True),
        ({"avx512_bf16": True}, AMD, True),
        ({"avx512_bf16": True, "amx_bf16": False}, INTEL, False),
        ({"avx512_f": True}, AMD, False),
        ({}, "", False),
    ],
)
def test_flags_that_mean_fast_bf16(
    capabilities: dict[str, bool], vendor: str, expected: bool
) -> None:
    assert fast_bf16(capabilities, vendor) is expected


def test_auto_follows_the_flags_and_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    for fast, wide in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(mixed_precision, "fast_bf16", lambda _, fast=fast: fast)
        assert resolve_precision("auto", CPU, 768) == wide
        assert resolve_precision("auto", CPU, 192) == "fp32"
    assert resolve_precision("bf16", CPU, 192) == "bf16"
    with pytest.raises(OptionError, match="fp16"):
        resolve_precision("fp16", CPU, 768)


@pytest.mark.parametrize("name", ["skip-tuning", "promptsrc", "maple+dept", "cocoop"])
def test_losses_are_float32_under_bf16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = prepared(name)
    seen: list[tuple[torch.dtype, bool]] = []
    terms = method.loss_terms

    def spy(outputs: Outputs, inputs: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        kinds = {outputs.image.dtype, outputs.text.dtype, *(x.dtype for x in inputs)}
        seen.extend((kind, torch.is_autocast_enabled("cpu")) for kind in kinds)
        return terms(outputs, inputs)

    monkeypatch.setattr(method, "loss_terms", spy)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with autocast("bf16", CPU):
        found = method.loss(method.frozen_inputs(pixels), torch.tensor([0, 2]))
    assert set(seen) == {(torch.float32, False)}
    assert all(term.dtype == torch.float32 for term in found.values())


def test_the_ranking_of_classes_is_float32_under_bf16() -> None:
    generator = torch.Generator().manual_seed(0)
    image, prototypes = (torch.randn(n, 64, generator=generator) for n in (4, 500))
    prototypes = torch.nn.functional.normalize(prototypes, dim=-1)
    labels, mask = torch.tensor([1, 2, 3, 4]), torch.arange(500) < 50
    plain = sampled_classes(image, prototypes, labels, mask)
    with autocast("bf16", CPU):
        assert torch.equal(sampled_classes(image, prototypes, labels, mask), plain)


@pytest.mark.parametrize("name", ["skip-tuning", "coop+dept"])
@pytest.mark.parametrize("tokens", [1, 1000], ids=["each class", "whole"])
def test_bf16_gradients_reach_every_parameter(
    name: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many class tokens pass at once: autocast's copies of parameters carry gradients."""
    monkeypatch.setattr(Backbone, "class_tokens_at_once", tokens)
    method = prepared(name)
    make_optimizer(method)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        inputs = method.frozen_inputs(pixels)
    gradients = []
    for precision in ("fp32", "bf16"):
        with frozen_text_in_bf16(method.backbone, precision):
            with autocast(precision, CPU):
                loss = sum(method.loss(inputs, torch.tensor([0, 3])).values(), torch.zeros(()))
            parameters = list(method.trained_parameters().values())
            gradients.append(torch.autograd.grad(loss, parameters))
    for name, exact, rough in zip(method.trained_parameters(), *gradients, strict=True):
        assert rough.dtype == torch.float32
        assert (rough - exact).norm() <= 0.1 * exact.norm() + 1e-7, name


def test_frozen_text_is_bf16_for_a_while_and_then_the_very_same() -> None:
    method = prepared("coop+dept")
    make_optimizer(method)
    weight = method.backbone.clip.transformer.resblocks[0].mlp.c_fc.weight
    place, before = weight.data_ptr(), weight.clone()
    with frozen_text_in_bf16(method.backbone, "bf16"):
        assert weight.dtype == torch.bfloat16
    assert weight.data_ptr() == place
    assert torch.equal(weight, before)
    with frozen_text_in_bf16(method.backbone, "fp32"):
        assert weight.data_ptr() == place


def test_a_gpu_is_not_waited_for_at_every_step() -> None:
    read = [step for step in range(1, 121) if is_loss_read(step, 120, torch.device("cuda"))]
    assert read == [1, 50, 100, 120]
    assert all(is_loss_read(step, 120, CPU) for step in range(1, 121))
