"""Every method by name: it learns, the rest stays frozen, and its tensors rebuild it."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import torch
from torch import Tensor

import fewclip
from fewclip.backbone import Backbone, load_backbone
from fewclip.errors import ClassNameError, OptionError, StoppedError
from fewclip.methods import registry
from fewclip.methods.base import Method
from fewclip.methods.prompting.promptsrc import PromptSRC, gaussian_weights, imagenet_templates
from fewclip.methods.skip_tuning import class_mask
from fewclip.preprocess import to_input
from fewclip.training.loop import TrainingSet, train

NAMES = ["a red card", "a green card", "a blue card"]
NEW = ["a zebra", "a very long name of a thing"]
LABELS = [i // 2 for i in range(6)]
PLAIN = [
    "clip-adapter",
    "cocoop",
    "coop",
    "fine-tune",
    "kgcoop",
    "maple",
    "promptsrc",
    "skip-tuning",
    "vpt",
    "zero-shot",
]
LIFTED = ["clip-adapter", "cocoop", "coop", "kgcoop", "maple", "promptsrc", "vpt"]
SMALL = {
    "embed": 32,
    "image": 64,
    "patch": 32,
    "vw": 64,
    "vl": 2,
    "tw": 64,
    "tl": 2,
    "ctx": 24,
    "vocab": 49408,
}
HEADS = ["gda", "linear-probe"]
UNTRAINED = ["zero-shot", *HEADS]
ALL = sorted([*PLAIN, *HEADS, "skip-tuning+gda", *(f"{name}+dept" for name in LIFTED)])
# Rates at which six pictures are enough to see learning.
RATES: dict[str, dict[str, Any]] = {
    "skip-tuning": {"image_lr": 1e-3, "text_lr": 1e-3},
    "fine-tune": {"lr": 1e-3},
    "promptsrc": {"templates": ["a photo of {}.", "{}."]},
}


loaded = functools.cache(load_backbone)


def build(name: str, seed: int = 0, backbone: Backbone | None = None, **options: Any) -> Method:
    """On a micro backbone of its own, or on the one given."""
    own = RATES.get(name.removesuffix("+dept"), {})
    context = {"n_ctx": 4} if name.startswith("coop") else {}
    small = {} if name.startswith("cocoop") else {"batch_size": 2}
    training = {"warmup_epochs": 0, "epochs": 3, **small} if name != "zero-shot" else {}
    return registry.build(
        name,
        backbone or copy.deepcopy(loaded("micro")),
        registry.make_options(name, {**training, **own, **context, **options}),
        template="a photo of {}.",
        phrases=NAMES,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.fixture(scope="module")
def micro() -> Backbone:
    return loaded("micro")


@pytest.fixture(scope="module")
def pictures(micro: Backbone) -> TrainingSet:
    rng = np.random.default_rng(0)
    colours = np.eye(3)[LABELS][:, None, None] * 200 + 25
    pixels = np.clip(colours + rng.integers(-25, 26, (6, 64, 64, 3)), 0, 255).astype(np.uint8)
    return TrainingSet(lambda i: pixels[i], LABELS, micro.preprocess)


@pytest.fixture(scope="module")
def inputs(pictures: TrainingSet) -> Tensor:
    """The pictures as they are, (6, 3, 64, 64)."""
    from PIL import Image

    images = (Image.fromarray(pictures.pixels(i)) for i in range(6))
    return torch.from_numpy(np.stack([to_input(i, pictures.preprocess) for i in images]))


@torch.no_grad()
def loss_of(method: Method, pixels: Tensor) -> float:
    terms = method.loss(method.frozen_inputs(pixels), torch.tensor(LABELS))
    return sum(float(term) for term in terms.values())


@torch.no_grad()
def logits_of(method: Method, pixels: Tensor, names: list[str]) -> list[Tensor]:
    image, intermediate = method.features_and_intermediate(pixels)
    itm, cat = method.logits(image, method.class_embeddings(names), intermediate)
    return [itm] if cat is None else [itm, cat]


def test_the_list_of_methods() -> None:
    assert registry.list_methods() == ALL
    assert registry.resolve("dept") == "kgcoop+dept"
    assert all(registry.describe(name).endswith(".") for name in ALL)
    assert registry.describe("vpt+dept").endswith("With DePT.")
    with pytest.raises(OptionError, match="skip-tuning"):
        registry.resolve("skip-tuning+dept")


@pytest.mark.parametrize("name", [name for name in ALL if name not in UNTRAINED])
def test_a_method_learns_and_comes_back(
    name: str, micro: Backbone, pictures: TrainingSet, inputs: Tensor
) -> None:
    """Loss falls, what is not named as trained stays as it was, and names and tensors are all
    that it takes to rebuild it."""
    method = build(name)
    method.setup(NAMES)
    before = loss_of(method, inputs)
    train(method, pictures, epochs=2, seed=0)
    assert loss_of(method, inputs) < before
    assert not any(p.requires_grad for p in method.parameters())

    moved = {
        key
        for (key, value), frozen in zip(
            method.backbone.named_parameters(), micro.parameters(), strict=True
        )
        if not torch.equal(value, frozen)
    }
    trained = method.trained_parameters()
    assert moved == {f"clip.{key}" for key in trained if f"clip.{key}" in moved}
    assert bool(moved) == name.startswith(("skip-tuning", "fine-tune"))

    again = build(name, seed=1)
    assert again.trained_parameters().keys() == trained.keys()
    with torch.no_grad():
        for key, parameter in again.trained_parameters().items():
            parameter.copy_(trained[key])
    again.load_state({key: value.clone() for key, value in method.state().items()})
    for names in (NAMES, NEW):
        for found, wanted in zip(
            logits_of(again, inputs, names), logits_of(method, inputs, names), strict=True
        ):
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", ["cocoop+dept", "maple+dept", "promptsrc"])
def test_a_stopped_run_ends_the_same(name: str, pictures: TrainingSet, tmp_path: Path) -> None:
    """To the bit, PromptSRC's running average included."""
    averaging: dict[str, Any] = {"average_mean": 2.0} if name == "promptsrc" else {}
    steps = 6 if name.startswith("cocoop") else 3

    def run(**settings: Any) -> dict[str, Tensor]:
        method = build(name, backbone=golden.backbone(SMALL), **averaging)
        method.setup(NAMES)
        train(method, pictures, epochs=3, seed=0, **settings)
        return {key: value.clone() for key, value in method.trained_parameters().items()}

    wanted = run()
    count = itertools.count()
    with pytest.raises(StoppedError, match="stopped after 2"):
        run(checkpoint=tmp_path / "c", stop=lambda: next(count) > 2 * steps)
    found = run(checkpoint=tmp_path / "c")
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_promptsrc_ends_with_the_average_over_epochs(pictures: TrainingSet) -> None:
    """Weights are those of a Gaussian over epochs counted from 1, normalised to sum 1."""
    kept: list[dict[str, Tensor]] = []

    class Spy(PromptSRC):
        def after_epoch(self, epoch: int, epochs: int) -> None:
            kept.append({k: p.detach().clone() for k, p in self.own_parameters().items()})
            super().after_epoch(epoch, epochs)

    options = PromptSRC.Options(
        epochs=3,
        warmup_epochs=0,
        templates=("{}.",),  # type: ignore[call-arg]
        average_mean=2.0,
        average_std=1.5,
    )
    method = Spy(
        golden.backbone(SMALL),
        options,
        template="a photo of {}.",
        n_classes=3,
        generator=torch.Generator().manual_seed(0),
    )
    method.setup(NAMES)
    train(method, pictures, epochs=3, seed=0)
    densities = np.exp(-(((np.array([1, 2, 3]) - 2.0) / 1.5) ** 2) / 2)
    weights = densities / densities.sum()
    for key, value in method.own_parameters().items():
        wanted = sum(w * epoch[key] for w, epoch in zip(weights, kept, strict=True))
        torch.testing.assert_close(value, wanted)
        assert not torch.allclose(value, kept[-1][key], atol=1e-7)


@pytest.mark.parametrize(("epochs", "mean", "std"), [(20, 15, 1), (20, 6, 10), (50, 30, 30)])
def test_published_average_weights(epochs: int, mean: float, std: float) -> None:
    densities = [np.exp(-((e - mean) ** 2) / (2 * std**2)) for e in range(1, epochs + 1)]
    wanted = np.array(densities) / sum(densities)
    np.testing.assert_allclose(gaussian_weights(epochs, mean, std), wanted, rtol=1e-9)


def test_average_of_few_epochs_before_the_mean() -> None:
    """A density that underflows must not become 0 / 0: the last epoch counts."""
    weights = gaussian_weights(2, 100.0, 1.0)
    assert sum(weights) == pytest.approx(1)
    assert weights[1] > 0.99


def test_imagenet_templates() -> None:
    templates = imagenet_templates()
    assert len(templates) == 80
    assert all(t.count("{}") == 1 for t in templates)


def test_depth_per_tower_and_capped(micro: Backbone) -> None:
    """micro has 8 image and 4 text blocks."""

    def sizes(name: str, **options: Any) -> dict[str, int]:
        shapes = build(name, **options).trained_parameters()
        kinds = ("text_prompts", "image_prompts", "projections")
        counts = {kind: sum(k.startswith(kind) for k in shapes) for kind in kinds}
        return {kind: count for kind, count in counts.items() if count}

    assert sizes("promptsrc") == {"text_prompts": 3, "image_prompts": 8}
    assert sizes("promptsrc", depth=(3, 2)) == {"text_prompts": 1, "image_prompts": 3}
    assert sizes("promptsrc", depth=1) == {"image_prompts": 1}
    assert sizes("vpt", depth=5) == {"image_prompts": 5}
    # Each level has a weight and a bias; the text levels beyond the text tower feed the image's.
    assert sizes("maple", depth=3) == {"text_prompts": 2, "projections": 6}
    assert sizes("maple", depth=(6, 2)) == {"text_prompts": 5, "projections": 12}
    assert sizes("maple", depth=(1, 4)) == {"text_prompts": 3, "projections": 2}


@pytest.mark.parametrize("depth", [(6, 2), (1, 4), 1])
def test_maple_with_unequal_depths_uses_every_parameter(depth: Any, inputs: Tensor) -> None:
    method = build("maple", depth=depth)
    method.setup(NAMES)
    parameters = method.trained_parameters()
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    (embedded,) = method.frozen_inputs(inputs)
    loss = sum(method.loss((embedded,), torch.tensor(LABELS)).values())
    for gradient in torch.autograd.grad(loss, list(parameters.values())):  # type: ignore[arg-type]
        assert gradient.abs().max() > 0


def test_maple_context() -> None:
    method = build("maple")
    assert method.prompt("x") == "a photo of a x."
    with pytest.raises(OptionError, match="only 4 tokens"):
        build("maple", n_ctx=5)
    free = build("maple", n_ctx=3, context="")
    assert free.prompt("x") == "X X X x."
    assert free.trained_parameters()["context"].shape == (3, 128)


def test_cocoop_says_that_its_text_depends_on_the_image() -> None:
    for name in ("cocoop", "cocoop+dept"):
        method = build(name)
        assert method.per_image_text
        assert method.class_embeddings(NAMES).features is None
        assert method.options.batch_size == 1
    assert not build("coop+dept").per_image_text


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("maple", {"depth": 0}, "depth"),
        ("vpt", {"depth": (1, 2, 3)}, "depth"),
        ("vpt", {"n_ctx": 0}, "n_ctx"),
        ("promptsrc", {"n_image_ctx": 0}, "n_image_ctx"),
        ("promptsrc", {"templates": ["no place"]}, "templates"),
        ("promptsrc", {"templates": "a photo of {}."}, "templates"),
        ("promptsrc", {"average_std": 0}, "average_std"),
        ("promptsrc", {"text_weight": -1}, "text_weight"),
        ("clip-adapter", {"ratio": 1.5}, "ratio"),
        ("clip-adapter", {"reduction": 0}, "reduction"),
        ("clip-adapter", {"depth": 3}, "depth"),
        ("vpt+dept", {"dept_weight": 2}, "dept_weight"),
        ("vpt", {"dept_weight": 0.5}, "dept_weight"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        registry.make_options(name, options)


def test_only_options_that_a_method_reads_are_listed() -> None:
    assert set(registry.option_defaults("gda")) == {"crop_area", "flip", "views", "dept_weight"}
    assert {"epochs", "momentum", "views"} <= set(registry.option_defaults("coop"))
    assert "views" not in registry.option_defaults("skip-tuning")
    assert not registry.option_defaults("zero-shot")
    assert not fewclip.zero_shot(["cat"]).card.options


@pytest.mark.parametrize("name", ["coop", "maple", "promptsrc", "vpt"])
def test_a_name_too_long_is_refused(name: str) -> None:
    with pytest.raises(ClassNameError, match="tokens"):
        build(name).class_embeddings(["short", "a name of far too many words " * 6])


@pytest.mark.parametrize(
    ("method", "option", "wanted"),
    [
        ("skip-tuning", {"same_class": "no"}, "option same_class must be true or false, got 'no'"),
        ("coop", {"context": 5}, "option context must be text, got 5"),
        ("coop", {"lr": "fast"}, "option lr must be a number, got 'fast'"),
        ("coop", {"epochs": True}, "option epochs must be a whole number, got True"),
        ("kgcoop+dept", {"dept_lr": "x"}, "option dept_lr must be a number"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(
    method: str, option: dict[str, object], wanted: str
) -> None:
    with pytest.raises(OptionError, match=re.escape(wanted)):
        registry.make_options(method, option)


def test_a_top_ratio_of_one_keeps_every_class_whatever_max_top_says() -> None:
    uniform = torch.ones(80)  # never below a probability
    assert class_mask(uniform, 1.0, 0.3, 50).all()
    assert int(class_mask(uniform, 0.99, 0.3, 50).sum()) == 50


def test_promptsrcs_average_covers_depts_head() -> None:
    backbone = load_backbone("micro")
    options = registry.make_options("promptsrc+dept", {"epochs": 2, "average_mean": 1.0})
    method = registry.build(
        "promptsrc+dept",
        backbone,
        options,
        template="a photo of a {}.",
        phrases=["cat", "dog"],
        generator=torch.Generator().manual_seed(0),
    )
    weights = gaussian_weights(2, 1.0, options["average_std"])
    seen = []
    for epoch in range(2):
        with torch.no_grad():
            for parameter in method.trained_parameters().values():
                parameter.add_(epoch + 1.0)
        seen.append({n: p.detach().clone() for n, p in method.trained_parameters().items()})
        method.after_epoch(epoch, 2)
    assert {"dept.weight", "dept.image_gamma", "context"} <= set(seen[0])
    for name, parameter in method.trained_parameters().items():
        expected = weights[0] * seen[0][name] + weights[1] * seen[1][name]
        torch.testing.assert_close(parameter.detach(), expected)
    assert any("dept." in name for name in method.state())


def test_depts_own_rate_may_differ_from_the_methods() -> None:
    rates = {}
    for given in (None, 0.016):
        method = registry.build(
            "kgcoop+dept",
            load_backbone("micro"),
            registry.make_options("kgcoop+dept", {"lr": 0.002, "dept_lr": given}),
            template="a photo of a {}.",
            phrases=["cat", "dog"],
            generator=torch.Generator().manual_seed(0),
        )
        rates[given] = method.param_groups()[-1].lr
    assert rates == {None: pytest.approx(0.013), 0.016: 0.016}
