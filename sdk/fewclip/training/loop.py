"""The one training loop. What is trained, and with which loss, is up to the method."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewclip.contract import Preprocess
from fewclip.errors import DivergedError, StoppedError
from fewclip.methods.base import BatchPlan, Method, MethodOptions
from fewclip.preprocess import CROP_AREA, WORKERS, augment
from fewclip.system.allocator import return_large_blocks
from fewclip.training.checkpoint import Checkpoint, load, remove, restore, save
from fewclip.training.device_views import augment_on_device
from fewclip.training.mixed_precision import autocast, frozen_text_in_bf16
from fewclip.training.optimizer import SGDInBackward

CHECKED_EVERY = 50  # steps on a GPU
Optimizer = TypeVar("Optimizer", bound=torch.optim.SGD)


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """The images to train on.

    Attributes:
        pixels: index -> decoded (H, W, 3) uint8; called from several threads.
        labels: class of each image.
        preprocess: of the backbone.
        crop_area, flip: of the augmentation.
    """

    pixels: Callable[[int], np.ndarray]
    labels: Sequence[int]
    preprocess: Preprocess
    crop_area: float = CROP_AREA
    flip: bool = True

    def views(self, wanted: Sequence[int], seed: int, epoch: int, device: torch.device) -> Tensor:
        """(n, 3, H, W) float32 on the device; (seed, epoch, image) determines each view.

        On the CPU Pillow resamples, elsewhere `augment_on_device`, from the same boxes.
        """
        rngs = [np.random.default_rng([seed, epoch, 1, i]) for i in wanted]
        how: dict[str, Any] = {"crop_area": self.crop_area, "flip": self.flip}

        def view(i: int, rng: np.random.Generator) -> np.ndarray:
            return augment(self.pixels(i), self.preprocess, rng, **how)

        with ThreadPoolExecutor(WORKERS) as pool:
            if device.type == "cpu":
                return torch.from_numpy(np.stack(list(pool.map(view, wanted, rngs))))
            decoded = list(pool.map(self.pixels, wanted))
        return augment_on_device(decoded, self.preprocess, rngs, device, **how)


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands, handed to the progress callback after every step.

    Attributes:
        epoch, epochs: the running epoch, counted from 1.
        step, steps: within the epoch, counted from 1.
        loss: mean of this epoch's steps so far; on a GPU as last read, every `CHECKED_EVERY` steps,
            because reading it waits for the GPU.
        images_per_second: over this call's steps.
        seconds_left: estimate to the end of training, and of trainings of the same run that follow.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds_left: float


@dataclasses.dataclass(frozen=True)
class History:
    """What a run leaves besides its weights: mean loss per epoch, and where it was resumed."""

    losses: tuple[float, ...]
    resumed_from: tuple[int, ...]


def learning_rate(base: float, epoch: int, epochs: int, options: MethodOptions) -> float:
    """The rate of a whole epoch, counted from 0: constant warm-up, then a cosine above 0."""
    if epoch < options.warmup_epochs:
        return options.warmup_lr
    return base * (1 + math.cos(math.pi * (epoch - options.warmup_epochs) / epochs)) / 2


def make_optimizer(
    method: Method,
    kind: type[Optimizer] = torch.optim.SGD,  # type: ignore[assignment]
) -> Optimizer:
    """SGD over the method's groups; everything outside them is frozen.

    Args:
        kind: `SGDInBackward` for the same numbers with less memory, where nothing else reads
            the gradients.
    """
    groups = method.param_groups()
    method.requires_grad_(False)
    for group in groups:
        for parameter in group.params.values():
            parameter.requires_grad_(True)
    return kind(
        [{"params": list(g.params.values()), "lr": g.lr, "base_lr": g.lr} for g in groups],
        momentum=method.options.momentum,
        weight_decay=method.options.weight_decay,
    )


def train_step(
    method: Method,
    optimizer: torch.optim.SGD,
    inputs: tuple[Tensor, ...],
    labels: Tensor,
    precision: str = "fp32",
) -> dict[str, Tensor]:
    """One step of SGD on one batch; returns the detached loss terms."""
    with autocast(precision, labels.device):
        terms = method.loss(inputs, labels)
    optimizer.zero_grad(set_to_none=True)
    torch.stack([term.float() for term in terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return {name: term.detach() for name, term in terms.items()}


def draw_batches(
    labels: Sequence[int], plan: BatchPlan, rng: np.random.Generator
) -> list[np.ndarray]:
    """One epoch's batches as indices of images, each image at most once.

    Same-class batches: a class drawn at random among those with a full batch left. A remainder
    smaller than the batch is dropped, but a class, or a set, that is smaller than a batch from the
    start gives one short batch.
    """
    if not plan.same_class:
        order = rng.permutation(len(labels))
        stop = max(len(order) - len(order) % plan.size, min(len(order), plan.size))
        return [order[i : i + plan.size] for i in range(0, stop, plan.size)]
    names = np.asarray(labels)
    piles: list[list[np.ndarray]] = []
    for label in np.unique(names):
        own = rng.permutation(np.flatnonzero(names == label))
        full = max(len(own) // plan.size, 1)
        piles.append([own[i * plan.size : (i + 1) * plan.size] for i in range(full)])
    batches = []
    while piles:
        k = int(rng.integers(len(piles)))
        batches.append(piles[k].pop())
        if not piles[k]:
            piles.pop(k)
    return batches


def train(
    method: Method,
    images: TrainingSet,
    *,
    epochs: int,
    seed: int,
    precision: str = "fp32",
    run: Mapping[str, Any] | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    later: float = 0,
) -> History:
    """Train `method` in place.

    Args:
        method: set up (`method.setup`) for the classes that the images' labels index.
        precision: "fp32" or "bf16".
        run: what this run is; a checkpoint of another run is refused.
        checkpoint: folder to resume from, written after every epoch.
        progress: called after every step.
        stop: polled before every step.
        later: trainings of this length that follow in the same run, for the time left.

    Raises:
        StoppedError: `stop` returned True, or Ctrl-C; the checkpoint holds the last finished epoch.
        CheckpointError: the checkpoint is broken or another run's.
        DivergedError: the loss is not finite; the checkpoint is removed, as it would diverge again.
    """
    return_large_blocks()
    device = method.backbone.device
    optimizer = make_optimizer(method, SGDInBackward)
    plan = method.batch_plan(int(np.bincount(np.asarray(images.labels)).max()))
    done = 0
    losses: list[float] = []
    resumed: list[int] = []
    if checkpoint is not None:
        found = load(checkpoint, run or {})
        if found is not None:
            restore(found, method, optimizer, epochs)
            done, losses = found.epochs_done, list(found.history)
            resumed = [*found.resumed_from, *([done] if 0 < done < epochs else [])]

    def keep() -> None:
        if checkpoint is not None:
            save(checkpoint, _snapshot(method, optimizer, run or {}, losses, resumed))

    if done == 0:
        keep()
    clock = _Clock(epochs, later)
    frozen = _FrozenPart(method, images, seed, precision)
    try:
        with frozen_text_in_bf16(method.backbone, precision):
            for epoch in range(done, epochs):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(group["base_lr"], epoch, epochs, method.options)
                batches = draw_batches(images.labels, plan, np.random.default_rng([seed, epoch, 0]))
                total = torch.zeros((), device=device)
                for step, (inputs, targets) in enumerate(frozen.batches(batches, epoch), 1):
                    if stop is not None and stop():
                        raise _stopped(len(losses), epochs, checkpoint)
                    terms = train_step(method, optimizer, inputs, targets, precision)
                    total += torch.stack([t.float() for t in terms.values()]).sum()
                    if is_loss_read(step, len(batches), device):
                        mean = float(total) / step
                        _check_finite(mean, method, epoch, epochs)
                    if progress is not None:
                        done_steps = epoch * len(batches) + step
                        progress(
                            clock.tick(epoch, step, len(batches), mean, done_steps, len(targets))
                        )
                method.after_epoch(epoch, epochs)
                losses.append(mean)
                keep()
    except DivergedError:
        if checkpoint is not None:
            remove(checkpoint)
        raise
    except KeyboardInterrupt:  # Ctrl-C
        raise _stopped(len(losses), epochs, checkpoint) from None
    finally:
        optimizer.close()
        method.requires_grad_(False)
    method.after_training()
    return History(tuple(losses), tuple(resumed))


def is_loss_read(step: int, steps: int, device: torch.device) -> bool:
    """Whether the loss is read after step `step` of an epoch's 1 .. `steps`.

    On a GPU at the first, the last and every `CHECKED_EVERY`th: reading it waits for the GPU.
    """
    return device.type == "cpu" or step in (1, steps) or step % CHECKED_EVERY == 0


def _check_finite(loss: float, method: Method, epoch: int, epochs: int) -> None:
    """
    Raises:
        DivergedError: the loss is infinite or not a number.
    """
    if math.isfinite(loss):
        return
    rates = {
        field.name: getattr(method.options, field.name)
        for field in dataclasses.fields(method.options)
        if field.name.endswith("lr")
    }
    named = ", ".join(f"{name}={rate:g}" for name, rate in rates.items())
    raise DivergedError(
        f"the loss became {loss} in epoch {epoch + 1} of {epochs}, and nothing was saved: the "
        f"learning rate is most likely too high ({named}); try a tenth of it, or method 'gda', "
        "which has none"
    )


def _stopped(done: int, epochs: int, checkpoint: Path | None) -> StoppedError:
    """The error that ends a run on request: how far it got, and where it can be resumed from."""
    where = f"; continue from {checkpoint}" if checkpoint is not None else ""
    kept = None if checkpoint is None else str(checkpoint)
    return StoppedError(f"stopped after {done} of {epochs} epochs{where}", kept)


class _FrozenPart:
    """Batches with their frozen part computed, as many at once as is worthwhile.

    Each image goes through the frozen part once per epoch, in a fresh augmentation determined by
    (seed, epoch, image). With the option `views`, epochs cycle through that many augmentations,
    each of which goes through once in the whole run.
    """

    def __init__(self, method: Method, images: TrainingSet, seed: int, precision: str) -> None:
        self.method, self.images, self.seed, self.precision = method, images, seed, precision
        self.device = method.backbone.device
        self.views = method.options.views if method.frozen_images else 0
        self._kept: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def batches(
        self, batches: Sequence[np.ndarray], epoch: int
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """(inputs, labels) of each batch of an epoch."""
        per_chunk = max(1, self.method.backbone.images_at_once // max(len(b) for b in batches))
        for first in range(0, len(batches), per_chunk):
            chunk = batches[first : first + per_chunk]
            wanted = [int(i) for batch in chunk for i in batch]
            frozen = self._revisited(wanted, epoch) if self.views else self._once(wanted, epoch)
            at = 0
            for batch in chunk:
                rows = slice(at, at + len(batch))
                at += len(batch)
                targets = torch.tensor([self.images.labels[i] for i in batch], device=self.device)
                yield tuple(x[rows] for x in frozen), targets

    def _once(self, wanted: Sequence[int], epoch: int) -> tuple[Tensor, ...]:
        views = self.images.views(wanted, self.seed, epoch, self.device)
        with torch.no_grad(), autocast(self.precision, self.device):
            return self.method.frozen_inputs(views)

    def _revisited(self, wanted: Sequence[int], epoch: int) -> tuple[Tensor, ...]:
        view = epoch % self.views
        new = [i for i in wanted if (view, i) not in self._kept]
        if new:
            rows = zip(*self._once(new, view), strict=True)
            self._kept |= {(view, i): row for i, row in zip(new, rows, strict=True)}
        columns = zip(*(self._kept[view, i] for i in wanted), strict=True)
        return tuple(torch.stack(column) for column in columns)


def _snapshot(
    method: Method,
    optimizer: torch.optim.SGD,
    run: Mapping[str, Any],
    losses: Sequence[float],
    resumed: Sequence[int],
) -> Checkpoint:
    parameters = method.trained_parameters()
    momentum = {
        name: optimizer.state[p]["momentum_buffer"]
        for name, p in parameters.items()
        if optimizer.state[p].get("momentum_buffer") is not None
    }
    return Checkpoint(
        run=run,
        epochs_done=len(losses),
        history=tuple(losses),
        resumed_from=tuple(resumed),
        parameters=parameters,
        momentum=momentum,
        state=method.state(),
    )


class _Clock:
    """Speed and time left, over the steps of this call."""

    def __init__(self, epochs: int, later: float) -> None:
        self.epochs = epochs
        self.epochs_in_all = epochs * (1 + later)
        self.begin = time.monotonic()
        self.images = 0
        self.steps = 0

    def tick(
        self, epoch: int, step: int, steps: int, mean: float, done: int, images: int
    ) -> Progress:
        self.images += images
        self.steps += 1
        seconds = max(time.monotonic() - self.begin, 1e-9)
        left = (self.epochs_in_all * steps - done) * seconds / self.steps
        return Progress(epoch + 1, self.epochs, step, steps, mean, self.images / seconds, left)
