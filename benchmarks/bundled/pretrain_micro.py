"""Pretrain a small CLIP from a folder of images with class names. It adapts nothing.

    python benchmarks/bundled/pretrain_micro.py IMAGES --out BACKBONE

makes a backbone the way the bundled one was made (its card is in sdk/fewclip/micro/README.md):
`BACKBONE/` then works as `fewclip adapt ... --backbone BACKBONE`. IMAGES has one sub-folder per
class. `--names names.json` may give {folder: {"name", "synonyms": [...], "coarse": [...]}}; without
it a class has its folder's name.

A caption is a template around a word; a word is the class's name (65 %), a synonym (10 %) or a
coarser word such as "bird" (25 %), where there are any. Several captions of a batch can be true of
one image: from image to caption, the other true ones are left out of the comparison; from caption
to image, all true images are positives.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from fewclip.backbone.loading import MICRO
from fewclip.contract import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
from fewclip.data import read
from fewclip.images import load_image
from fewclip.tokenizer import Tokenizer

TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "a close-up photo of a {}.",
    "a bright photo of a {}.",
    "a photo of the {}.",
    "an image of a {}",
    "{}",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The bundled backbone's recipe.

    Attributes:
        lr: peak of AdamW's learning rate, reached after `warmup` steps, then cosine to 0.
        drop: share of patches dropped at random during the first `drop_until` of the steps.
        clip: limit on the gradient norm.
        steps: stop after this many; None for all epochs.
    """

    epochs: int = 14
    batch: int = 256
    lr: float = 1.2e-3
    warmup: int = 400
    weight_decay: float = 0.1
    clip: float = 1.0
    drop: float = 0.5
    drop_until: float = 0.88
    seed: int = 0
    steps: int | None = None


@dataclasses.dataclass(frozen=True)
class Words:
    """What captions may call one class."""

    name: str
    synonyms: tuple[str, ...] = ()
    coarse: tuple[str, ...] = ()

    def draw(self, rng: np.random.Generator) -> str:
        kind = rng.random()
        if kind < 0.25 and self.coarse:
            return str(rng.choice(self.coarse))
        if kind < 0.35 and self.synonyms:
            return str(rng.choice(self.synonyms))
        return self.name

    @property
    def all(self) -> frozenset[str]:
        return frozenset({self.name, *self.synonyms, *self.coarse})


def read_words(classes: Sequence[str], file: Path | None) -> list[Words]:
    """Read names from a JSON file, or take the folders'."""
    given: Mapping[str, Any] = {} if file is None else json.loads(file.read_text("utf-8"))
    return [
        Words(
            str(given.get(label, {}).get("name", label.replace("_", " "))),
            tuple(given.get(label, {}).get("synonyms", ())),
            tuple(given.get(label, {}).get("coarse", ())),
        )
        for label in classes
    ]


def contrastive_loss(image: Tensor, text: Tensor, own: Tensor, true: Tensor, s: Tensor) -> Tensor:
    """image (B, D) and text (C, D) unit features, own (B,) caption of each image, true (B, C)."""
    logits = s * image @ text.T
    others = true.clone()
    others[torch.arange(len(own)), own] = False
    to_caption = F.cross_entropy(logits.masked_fill(others, -math.inf), own)
    log_p = logits.log_softmax(0)  # over images
    to_image = -((log_p * true).sum(0) / true.sum(0)).mean()
    return to_caption + to_image / 2


def batches(n: int, settings: Settings) -> Iterator[np.ndarray]:
    """Shuffled batches of all epochs; one smaller than `batch` only where n is smaller."""
    size = min(settings.batch, n)
    for epoch in range(settings.epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(n)
        yield from (order[i : i + size] for i in range(0, n - size + 1, size))


def make_model(config: Mapping[str, Any], settings: Settings) -> Any:
    from open_clip.model import CLIP

    torch.manual_seed(settings.seed)
    vision = {**config["vision_cfg"], "patch_dropout": settings.drop}
    return CLIP(**{**config, "vision_cfg": vision})


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """Weight decay on matrices alone."""
    named = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in named if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in named if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.98),
    )


def rate(step: int, total: int, settings: Settings) -> float:
    """Learning rate of a step: linear warm-up, then a cosine to 0."""
    warmup = min(settings.warmup, total // 2)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2


def pretrain(
    images: Path, config: Mapping[str, Any], settings: Settings, names: Path | None = None
) -> tuple[Any, list[float]]:
    """Train from scratch; returns the open_clip model, in eval mode, and the loss of each step."""
    pool = read(images)
    words = read_words(pool.classes, names)
    size = config["vision_cfg"]["image_size"]
    preprocess = json.loads((MICRO / OPEN_CLIP_CONFIG).read_text("utf-8"))["preprocess_cfg"]
    augment = v2.Compose(
        [
            v2.RandomResizedCrop(size, (0.3, 1), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocess["mean"], preprocess["std"]),
        ]
    )
    pictures = [load_image(item.image) for item in pool.train]
    labels = np.array([item.label for item in pool.train])
    model = make_model(config, settings)
    optimizer = make_optimizer(model, settings)
    tokenizer = Tokenizer.from_open_clip()
    rng = np.random.default_rng(settings.seed)
    plan = list(batches(len(pictures), settings))[: settings.steps]
    losses = []
    model.train()
    for step, chosen in enumerate(plan):
        if step >= settings.drop_until * len(plan):
            model.visual.patch_dropout = nn.Identity()
        for group in optimizer.param_groups:
            group["lr"] = rate(step, len(plan), settings)
        said = [(words[labels[i]].draw(rng), str(rng.choice(TEMPLATES))) for i in chosen]
        distinct = sorted(set(said))
        own = torch.tensor([distinct.index(caption) for caption in said])
        true = torch.tensor([[w in words[labels[i]].all for w, _ in distinct] for i in chosen])
        captions = [template.replace("{}", word) for word, template in distinct]
        tokens = torch.from_numpy(tokenizer.encode(captions, model.context_length))
        pixels = torch.stack([augment(pictures[i]) for i in chosen])
        with torch.autocast("cpu", torch.bfloat16):
            image = model.encode_image(pixels, normalize=True)
            text = model.encode_text(tokens, normalize=True)
        loss = contrastive_loss(image.float(), text.float(), own, true, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        model.logit_scale.data.clamp_(0, math.log(100))
        losses.append(float(loss.detach()))
        if step % 50 == 0 or step + 1 == len(plan):
            print(f"step {step + 1}/{len(plan)}  loss {losses[-1]:.3f}", file=sys.stderr)
    model.visual.patch_dropout = nn.Identity()
    return model.eval(), losses


def save(model: Any, config: Mapping[str, Any], out: Path) -> None:
    """A folder that `load_backbone` takes; weights in half precision."""
    from safetensors.torch import save_file

    out.mkdir(parents=True)
    preprocess = json.loads((MICRO / OPEN_CLIP_CONFIG).read_text("utf-8"))["preprocess_cfg"]
    whole = {"model_cfg": config, "preprocess_cfg": preprocess}
    (out / OPEN_CLIP_CONFIG).write_text(json.dumps(whole, indent=2) + "\n", "utf-8")
    state = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    save_file(state, out / OPEN_CLIP_WEIGHTS)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path, help="one sub-folder per class")
    parser.add_argument("--out", type=Path, required=True, help="the backbone folder to write")
    parser.add_argument("--names", type=Path, help="JSON: what each folder's class is called")
    parser.add_argument(
        "--config", type=Path, default=MICRO / OPEN_CLIP_CONFIG, help="open_clip config"
    )
    for field in dataclasses.fields(Settings):
        kind = int if field.name in ("epochs", "batch", "warmup", "seed", "steps") else float
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    arguments = parser.parse_args(argv)
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists already")
    config = json.loads(arguments.config.read_text("utf-8"))["model_cfg"]
    names = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    model, _ = pretrain(arguments.images, config, settings, arguments.names)
    save(model, config, arguments.out)
    print(f"saved: {arguments.out}")


if __name__ == "__main__":
    main()
