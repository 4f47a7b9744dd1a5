"""What makes it fast changes no number: the product against `plain`, which leaves nothing out.

In float64, so that what differs is the mathematics and not the order of additions. Each of the six
equalities of the design is also shown to be at work: a count of what is computed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import golden
import pytest
import torch
import torch.nn.functional as F
from plain import Plain, cosine, image, text, train
from torch import Tensor

from fewclip.backbone import Backbone, ClassPrompts
from fewclip.methods import registry
from fewclip.methods.base import Method
from fewclip.methods.skip_tuning import SkipTuning
from fewclip.training.loop import make_optimizer, train_step

ARCH = {
    "embed": 64,
    "image": 64,
    "patch": 16,
    "vw": 128,
    "vl": 4,
    "tw": 64,
    "tl": 4,
    "ctx": 24,
    "vocab": 49408,
}
NAMES = ["tabby cat", "sea urchin", "umbrella", "very long name of a thing, in words", "teapot"]
NEW = ["red panda", "snowmobile"]
TEMPLATE = "a photo of a {}."
SMALL: dict[str, dict[str, Any]] = {
    "promptsrc": {"templates": [TEMPLATE, "a drawing of the {}.", "{}."], "depth": 3},
    "maple": {"depth": 3},
    "vpt": {"depth": 3},
    "coop": {"n_ctx": 4},
}
HEADS = ("gda", "linear-probe", "skip-tuning+gda")  # closed form: no loss to compare
TRAINED = [
    name for name in registry.list_methods() if name not in ("zero-shot", "skip-tuning", *HEADS)
]
NO_GOLDEN_FILE = ["vpt", "vpt+dept", "promptsrc+dept", "clip-adapter+dept"]
CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-10}


@pytest.fixture(scope="module")
def tower() -> Backbone:
    return golden.backbone(ARCH).double()


def build(tower: Backbone, name: str, names: list[str] = NAMES, **options: Any) -> Method:
    """Untrained but for a nudge, so that no parameter stands at a special value such as 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    chosen = registry.make_options(name, {**SMALL.get(name.removesuffix("+dept"), {}), **options})
    method = registry.build(
        name,
        copy.deepcopy(tower),
        chosen,
        template=TEMPLATE,
        phrases=names,
        generator=generator,
    ).double()
    for parameter in method.trained_parameters().values():
        nudge = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += 0.01 * nudge
    method.setup(names)
    return method


def second(method: Method, name: str) -> Plain:
    options = {**vars(method.options), "dept_weight": getattr(method, "dept_weight", None)}
    clip = method.backbone.clip
    return Plain(name, clip, method.trained_parameters(), options, TEMPLATE)


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(4, 3, 64, 64, generator=generator, dtype=torch.float64)
    return pixels, torch.randint(len(NAMES), (4,), generator=generator)


def product_loss(method: Method, pixels: Tensor, labels: Tensor) -> Tensor:
    make_optimizer(method)  # marks what is trained
    with torch.no_grad():
        inputs = method.frozen_inputs(pixels)
    return torch.stack(list(method.loss(inputs, labels).values())).sum()


def compare_gradients(method: Method, ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, **CLOSE)
    named = method.trained_parameters()
    mine = torch.autograd.grad(ours, list(named.values()), retain_graph=True)
    plain = torch.autograd.grad(theirs, list(named.values()))
    for name, a, b in zip(named, mine, plain, strict=True):
        assert b.abs().max() > 1e-9, f"{name} has no gradient to compare"
        torch.testing.assert_close(a, b, **CLOSE, msg=f"{name}: {(a - b).abs().max():.3g} apart")


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("tokens", [None, 1, 24], ids=["whole", "each class", "blocks"])
def test_losses_and_gradients(
    tower: Backbone, name: str, tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many class tokens pass the text tower at once."""
    if tokens is not None:
        monkeypatch.setattr(Backbone, "class_tokens_at_once", tokens)
    method = build(tower, name)
    pixels, labels = batch(0)
    ours = product_loss(method, pixels, labels)
    compare_gradients(method, ours, second(method, name).loss(pixels, labels, NAMES))


@pytest.mark.parametrize("tokens", [None, 1, 24], ids=["whole", "each class", "blocks"])
def test_skip_tuning_losses_and_gradients(
    tower: Backbone, tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LSkip starts from kept hidden states, CSkip takes fewer classes through the text tower."""
    if tokens is not None:
        monkeypatch.setattr(Backbone, "class_tokens_at_once", tokens)
    method = build(tower, "skip-tuning", omega=2)
    assert isinstance(method, SkipTuning)
    method.mask = torch.tensor([True, True, False, True, False])
    pixels, labels = batch(3)
    ours = product_loss(method, pixels, labels)

    clip = method.backbone.clip
    v, t = image(clip, pixels), text(clip, [TEMPLATE.format(name) for name in NAMES])
    with torch.no_grad():
        similar = cosine(v, t, clip) / clip.logit_scale.exp()
        best = [
            2.0 if m in labels.tolist() else max(float(row[m]) for row in similar)
            for m in range(len(NAMES))
        ]
    ranked = sorted(range(len(NAMES)), key=lambda m: -best[m])
    kept = sorted({m for rank, m in enumerate(ranked) if method.mask[rank]} | set(labels.tolist()))
    assert len(kept) < len(NAMES)
    renumbered = torch.tensor([kept.index(y) for y in labels.tolist()])
    compare_gradients(method, ours, F.cross_entropy(cosine(v, t[kept], clip), renumbered))


@pytest.mark.parametrize("name", NO_GOLDEN_FILE)
def test_training_without_golden_file(tower: Backbone, name: str) -> None:
    """Losses of a few steps and, after them, logits on trained and new classes."""
    ours = build(tower, name, lr=0.01)
    theirs = second(copy.deepcopy(ours), name)
    for parameter in theirs.p.values():
        parameter.requires_grad_(True)
    batches = [batch(seed) for seed in range(5)]
    wanted = train(theirs, NAMES, batches)
    optimizer: torch.optim.SGD = make_optimizer(ours)
    found = []
    for pixels, labels in batches:
        with torch.no_grad():
            inputs = ours.frozen_inputs(pixels)
        found.append(sum(float(t) for t in train_step(ours, optimizer, inputs, labels).values()))
    # The trainer adds up loss terms in float32.
    assert found == pytest.approx(wanted, rel=1e-6)
    assert abs(wanted[-1] - wanted[0]) > 1e-3
    pixels, _ = batch(9)
    with torch.no_grad():
        for names in (NAMES, NEW):
            itm, cat = ours.logits(ours.image_features(pixels), ours.class_embeddings(names))
            plain_itm, plain_cat = theirs.logits(pixels, names)
            torch.testing.assert_close(itm, plain_itm, rtol=1e-6, atol=1e-6)
            if cat is not None:
                torch.testing.assert_close(cat, plain_cat, rtol=1e-6, atol=1e-6)


# ---- equality 1 and 2: fewer positions, shared prefix ----------------------------------------

CLASS_SETS = {
    "shared words": [TEMPLATE.format(name) for name in NAMES],
    "one class": [TEMPLATE.format("sea urchin")],
    "nothing shared but SOS": ["umbrella", "a photo of a cat", "the very long name of a thing"],
    "one the start of another": ["a photo of a cat", "a photo of a cat flap.", "a photo of"],
    "same name twice": ["a photo of a cat", "a photo of a cat"],
}


@pytest.mark.parametrize("prompts", CLASS_SETS.values(), ids=CLASS_SETS.keys())
def test_text_features_of_class_sets(tower: Backbone, prompts: list[str]) -> None:
    """Features, and gradients of all that is trained in the tower, at any start block."""
    tower = copy.deepcopy(tower)
    split = tower.tokenize(prompts)
    trained = [p.requires_grad_(True) for p in tower.clip.transformer.parameters()]
    wanted = text(tower.clip, prompts)
    weight = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0)).double()
    plain = torch.autograd.grad((wanted * weight).sum(), trained)
    for start in range(tower.text_depth):
        hidden = tower.text_blocks(tower.text_embed(split), 0, start)
        found = tower.text_features(hidden, start)
        torch.testing.assert_close(found, wanted, **CLOSE)
        for a, b in zip(torch.autograd.grad((found * weight).sum(), trained), plain, strict=True):
            torch.testing.assert_close(a, b, **CLOSE)


def test_class_sets_are_cut_and_split(tower: Backbone) -> None:
    sets = {key: tower.tokenize(prompts) for key, prompts in CLASS_SETS.items()}
    sizes = {key: (len(s.prefix), tuple(s.suffix.shape)) for key, s in sets.items()}
    assert sizes == {
        "shared words": (5, (5, 11)),
        "one class": (9, (1, 1)),
        "nothing shared but SOS": (1, (3, 8)),
        "one the start of another": (4, (3, 5)),
        "same name twice": (6, (2, 1)),
    }


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("names", [NAMES, ["umbrella"]], ids=["several", "one class"])
def test_prompts_at_every_level(tower: Backbone, names: list[str], per_image: bool) -> None:
    """Context and deep prompts, and their gradients; per image each has its own text pass."""
    generator = torch.Generator().manual_seed(2)

    def vectors(*shape: int) -> Tensor:
        values = torch.randn(*shape, tower.text_width, generator=generator, dtype=torch.float64)
        return values.requires_grad_(True)

    context, deep = vectors(3, 2) if per_image else vectors(2), [vectors(2), vectors(2)]
    prompts = [f"X X {name}." for name in names]
    hidden = tower.text_embed(tower.tokenize(prompts), context)
    found = tower.text_features(hidden, deep=deep)
    each = context if per_image else [context]
    wanted = torch.stack([text(tower.clip, prompts, [one, *deep]) for one in each])
    wanted = wanted if per_image else wanted[0]
    torch.testing.assert_close(found, wanted, **CLOSE)
    weight = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    leaves = [context, *deep]
    mine = torch.autograd.grad((found * weight).sum(), leaves)
    for a, b in zip(mine, torch.autograd.grad((wanted * weight).sum(), leaves), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("name", [n for n in registry.list_methods() if "cocoop" not in n])
def test_exportable_form(tower: Backbone, name: str) -> None:
    """Full-length rows one by one give what the class set gives."""
    method = build(tower, name)
    tokens = method.backbone.tokenize([method.prompt(n) for n in NAMES])
    rows = torch.zeros(len(NAMES), method.backbone.context_length, dtype=torch.int64)
    rows[:, : len(tokens.prefix)] = tokens.prefix
    rows[:, len(tokens.prefix) :][:, : tokens.suffix.shape[1]] = tokens.suffix
    with torch.no_grad():
        torch.testing.assert_close(
            method.text_from_tokens(rows), method.text_features(tokens), **CLOSE
        )


# ---- equality 3: one row in the last block ---------------------------------------------------


@pytest.fixture
def rows_through(tower: Backbone) -> Iterator[dict[str, list[int]]]:
    """Rows (positions) that each tower's MLPs see, block by block."""
    seen: dict[str, list[int]] = {"image": [], "text": []}
    handles = [
        block.mlp.register_forward_pre_hook(
            lambda _, args, kind=kind: seen[kind].append(args[0].numel() // args[0].shape[-1])
        )
        for kind, blocks in (
            ("image", tower.clip.visual.transformer.resblocks),
            ("text", tower.clip.transformer.resblocks),
        )
        for block in blocks
    ]
    yield seen
    for handle in handles:
        handle.remove()


def test_last_block_runs_one_row(tower: Backbone, rows_through: dict[str, list[int]]) -> None:
    pixels, _ = batch(0)
    prompts = tower.tokenize([TEMPLATE.format(name) for name in NAMES])
    with torch.no_grad():
        tower.image_features(tower.image_embed(pixels))
        tower.text_features(tower.text_embed(prompts))
    assert rows_through["image"] == [4 * 17] * 3 + [4]
    own = len(prompts.prefix) + int((prompts.eot + 1).sum())
    *rows, last = rows_through["text"]
    assert last == len(NAMES)
    assert rows == rows[:1] * 3
    assert own <= rows[0] <= own * 9 / 8, "every name has a length of its own"
    assert own < len(prompts.prefix) + prompts.suffix.numel() < len(NAMES) * ARCH["ctx"]


# ---- equalities 4 and 5: what is frozen, and what a class set needs once ----------------------


def count_calls(module: torch.nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


FROZEN_IMAGES = ["coop", "kgcoop", "cocoop", "clip-adapter"]
FROZEN_TEXT = ["vpt", "clip-adapter"]


@pytest.mark.parametrize("name", [n + end for n in FROZEN_IMAGES for end in ("", "+dept")])
def test_steps_never_enter_a_frozen_image_tower(tower: Backbone, name: str) -> None:
    method = build(tower, name)
    pixels, labels = batch(0)
    (features,) = method.frozen_inputs(pixels)
    assert features.shape == (4, ARCH["embed"])
    blocks = method.backbone.clip.visual.transformer.resblocks
    calls = [count_calls(block.mlp) for block in blocks]
    method.loss((features,), labels)
    assert not any(calls)


@pytest.mark.parametrize("name", [n + end for n in FROZEN_TEXT for end in ("", "+dept")])
def test_steps_never_enter_a_frozen_text_tower(tower: Backbone, name: str) -> None:
    method = build(tower, name)
    pixels, labels = batch(0)
    calls = count_calls(method.backbone.clip.token_embedding)
    method.loss(method.frozen_inputs(pixels), labels)
    assert not calls


def test_skip_tuning_steps_start_at_omega(tower: Backbone) -> None:
    method = build(tower, "skip-tuning", omega=3)
    pixels, labels = batch(0)
    inputs = method.frozen_inputs(pixels)
    clip = method.backbone.clip
    below = [*clip.visual.transformer.resblocks[:3], *clip.transformer.resblocks[:3]]
    calls = [count_calls(block.mlp) for block in below]
    method.loss(inputs, labels)
    assert not any(calls)


@pytest.mark.parametrize("name", [n for n in registry.list_methods() if n not in HEADS])
def test_text_features_once_per_class_set(tower: Backbone, name: str) -> None:
    method = build(tower, name).requires_grad_(False)
    bank = method.class_embeddings(NEW)
    calls = count_calls(method.backbone.clip.token_embedding)
    pixels, _ = batch(0)
    for _ in range(2):
        method.logits(method.image_features(pixels), bank)
    assert bool(calls) == name.startswith("cocoop")


def test_blocks_of_classes_end_at_their_own_longest_name(
    tower: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = build(tower, "coop")
    whole = method.class_embeddings(NAMES).features
    shapes: list[tuple[int, int, int]] = []  # classes, longest, tokens without padding
    once = method.backbone.text_embed

    def spy(prompts: ClassPrompts, context: Tensor) -> Any:
        shapes.append((*prompts.suffix.shape, int((prompts.eot + 1).sum())))
        return once(prompts, context)

    monkeypatch.setattr(method.backbone, "text_embed", spy)
    monkeypatch.setattr(Backbone, "class_tokens_at_once", 10)
    torch.testing.assert_close(method.class_embeddings(NAMES).features, whole, **CLOSE)
    assert sum(count for count, *_ in shapes) == len(NAMES)
    lengths = [length for _, length, _ in shapes]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
    for count, _, tokens in shapes:
        assert count == 1 or tokens <= 10 + 10 // 8


def test_cocoop_inference_in_pieces(tower: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large class set is compared with few images at a time, to the same logits."""
    method = build(tower, "cocoop").requires_grad_(False)
    bank = method.class_embeddings(NAMES)
    features = method.image_features(batch(0)[0])
    whole, _ = method.logits(features, bank)
    monkeypatch.setattr(
        "fewclip.methods.prompting.cocoop.TOKEN_BUDGET", bank.prompts.suffix.numel() * 3
    )
    sizes: list[int] = []
    once = method.backbone.text_embed

    def spy(prompts: ClassPrompts, context: Tensor) -> Any:
        sizes.append(len(context))
        return once(prompts, context)

    monkeypatch.setattr(method.backbone, "text_embed", spy)
    pieces, _ = method.logits(features, bank)
    assert sizes == [3, 1]
    torch.testing.assert_close(pieces, whole, **CLOSE)
