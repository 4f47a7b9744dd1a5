"""The one loop: batches, rates, checkpoints. On the real micro backbone."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewclip.backbone import load_backbone, towers
from fewclip.errors import CheckpointError, OptionError, StoppedError
from fewclip.methods import registry
from fewclip.methods.base import BatchPlan, Method
from fewclip.training import checkpoint as checkpoints
from fewclip.training.loop import (
    Progress,
    TrainingSet,
    draw_batches,
    make_optimizer,
    train,
    train_step,
)
from fewclip.training.optimizer import SGDInBackward

NAMES = ["cat", "dog", "bird"]
Weights = dict[str, torch.Tensor]


def flat(batches: list[np.ndarray]) -> list[int]:
    return [int(i) for batch in batches for i in batch]


def test_same_class_batches_hold_one_class_and_drop_the_remainder() -> None:
    labels = [0] * 9 + [1] * 4 + [2] * 3
    batches = draw_batches(labels, BatchPlan(4, same_class=True), np.random.default_rng(0))
    assert sorted(len(b) for b in batches) == [3, 4, 4, 4]
    assert all(len({labels[i] for i in batch}) == 1 for batch in batches)
    assert len(set(flat(batches))) == len(flat(batches)) == 15
    assert {labels[i] for b in batches if len(b) == 3 for i in b} == {2}


def test_random_batches_mix_classes_and_drop_the_remainder() -> None:
    labels = [0] * 5 + [1] * 6
    batches = draw_batches(labels, BatchPlan(4), np.random.default_rng(0))
    assert [len(b) for b in batches] == [4, 4]
    assert len(set(flat(batches))) == 8


def test_fewer_images_than_a_batch_give_one_short_batch() -> None:
    assert [len(b) for b in draw_batches([0, 1], BatchPlan(4), np.random.default_rng(0))] == [2]


def test_batches_differ_from_epoch_to_epoch_and_follow_the_seed() -> None:
    plan = BatchPlan(4, same_class=True)
    labels = [0] * 16 + [1] * 16
    one, again, other = (
        flat(draw_batches(labels, plan, np.random.default_rng([7, epoch, 0])))
        for epoch in (0, 0, 1)
    )
    assert one == again
    assert one != other


def untrained(name: str = "skip-tuning", **options: object) -> Method:
    method = registry.build(
        name,
        load_backbone("micro"),
        registry.make_options(name, {"epochs": 3, **options}),
        template="a photo of a {}.",
        phrases=NAMES,
        generator=torch.Generator().manual_seed(0),
    )
    method.setup(NAMES)
    return method


@pytest.fixture(scope="module")
def pictures() -> TrainingSet:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (12, 1, 1, 3))
    noise = rng.integers(-20, 21, (12, 40, 48, 3))
    pixels = np.clip(colours + noise, 0, 255).astype(np.uint8)
    return TrainingSet(
        lambda i: pixels[i], [i // 4 for i in range(12)], load_backbone("micro").preprocess
    )


def run(method: Method, pictures: TrainingSet, **options: object) -> Weights:
    settings = {"epochs": 3, "seed": 5, "run": {"id": 1}, **options}
    train(method, pictures, **settings)  # type: ignore[arg-type]
    return {k: v.detach().clone() for k, v in method.trained_parameters().items()}


@pytest.fixture(scope="module")
def whole(pictures: TrainingSet) -> dict[str, Weights]:
    """The weights of an uninterrupted run, by method."""
    return {name: run(untrained(name), pictures) for name in ("skip-tuning", "kgcoop+dept")}


def stop_after(steps: int):  # type: ignore[no-untyped-def]
    count = itertools.count()
    return lambda: next(count) >= steps


@pytest.mark.parametrize("name", ["skip-tuning", "kgcoop+dept"])
def test_a_stopped_run_goes_on_to_the_same_weights(
    name: str,
    pictures: TrainingSet,
    whole: dict[str, Weights],
    tmp_path: Path,
) -> None:
    with pytest.raises(StoppedError, match=r"stopped after 1 of 3 epochs") as caught:
        run(untrained(name), pictures, checkpoint=tmp_path / "c", stop=stop_after(5))
    assert caught.value.checkpoint == str(tmp_path / "c")
    method = untrained(name)
    history = train(method, pictures, epochs=3, seed=5, run={"id": 1}, checkpoint=tmp_path / "c")
    assert history.resumed_from == (1,)
    assert len(history.losses) == 3
    for key, value in method.trained_parameters().items():
        assert torch.equal(value, whole[name][key]), key


def test_a_run_stopped_before_its_first_epoch_ends_leaves_a_checkpoint(
    pictures: TrainingSet, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError, match="stopped after 0 of 3"):
        run(untrained(), pictures, checkpoint=tmp_path / "c", stop=stop_after(1))
    assert checkpoints.load(tmp_path / "c", {"id": 1}) is not None


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    pictures: TrainingSet, whole: dict[str, Weights]
) -> None:
    again, other = (run(untrained(), pictures, seed=s) for s in (5, 6))
    for key, value in whole["skip-tuning"].items():
        assert torch.equal(value, again[key])
    assert not all(torch.equal(value, other[key]) for key, value in again.items())


def test_what_is_frozen_stays_and_what_is_trained_moves(pictures: TrainingSet) -> None:
    method = untrained(image_lr=0.01, text_lr=0.01)
    before = {k: v.clone() for k, v in method.backbone.state_dict().items()}
    run(method, pictures)
    moved = {k for k, v in method.backbone.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"clip." + k for k in method.trained_parameters()}


def test_a_checkpoint_of_another_run_is_refused_by_what_differs(
    pictures: TrainingSet, tmp_path: Path
) -> None:
    run(untrained(), pictures, checkpoint=tmp_path / "c", epochs=1)
    with pytest.raises(CheckpointError, match=r"id=1 \(now 2\)"):
        run(untrained(), pictures, checkpoint=tmp_path / "c", run={"id": 2})


def test_a_broken_checkpoint_is_refused_with_the_way_out(
    pictures: TrainingSet, tmp_path: Path
) -> None:
    run(untrained(), pictures, checkpoint=tmp_path / "c", epochs=1)
    file = tmp_path / "c" / checkpoints.STATE_FILE
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="start over"):
        run(untrained(), pictures, checkpoint=tmp_path / "c")


def test_removing_a_checkpoint_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    checkpoints.remove(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_progress_counts_every_step(pictures: TrainingSet) -> None:
    seen: list[Progress] = []
    run(untrained(), pictures, progress=seen.append)
    assert [(p.epoch, p.step) for p in seen] == [(e, s) for e in (1, 2, 3) for s in (1, 2, 3)]
    assert {(p.epochs, p.steps) for p in seen} == {(3, 3)}
    assert seen[-1].seconds_left == 0
    assert all(np.isfinite(p.loss) and p.images_per_second > 0 for p in seen)


def test_bf16_trains_too_and_keeps_float32_parameters(
    pictures: TrainingSet, whole: dict[str, Weights]
) -> None:
    for key, value in run(untrained(), pictures, precision="bf16").items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, whole["skip-tuning"][key], atol=0.02, rtol=0.1)


@pytest.mark.parametrize("name", ["skip-tuning", "kgcoop+dept", "maple"])
def test_the_update_inside_backward_is_torchs_own_to_the_bit(
    name: str, pictures: TrainingSet
) -> None:
    ours, plain = untrained(name), untrained(name)
    fused: Any = functools.partial(torch.optim.SGD, fused=True)
    optimizers: tuple[SGDInBackward, torch.optim.SGD] = (
        make_optimizer(ours, SGDInBackward),
        make_optimizer(plain, fused),
    )
    labels = torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        inputs = plain.frozen_inputs(
            pictures.views(range(4), seed=0, epoch=0, device=torch.device("cpu"))
        )
    for _ in range(3):
        for method, optimizer in zip((ours, plain), optimizers, strict=True):
            train_step(method, optimizer, inputs, labels)
    optimizers[0].close()
    for key, value in ours.trained_parameters().items():
        other = plain.trained_parameters()[key]
        assert torch.equal(value, other), key
        assert value.grad is None
        buffers = [o.state[p] for o, p in zip(optimizers, (value, other), strict=True)]
        assert torch.equal(*(b["momentum_buffer"] for b in buffers)), key


def test_frozen_chunks_are_sized_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone("micro")
    assert 4 <= backbone.images_at_once <= 256
    monkeypatch.setitem(towers.ACTIVATION_BYTES, "cpu", 1)
    assert backbone.images_at_once == 1


def test_chunks_change_no_weight(
    pictures: TrainingSet,
    whole: dict[str, Weights],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(towers.ACTIVATION_BYTES, "cpu", 1)
    for key, value in run(untrained(), pictures).items():
        torch.testing.assert_close(value, whole["skip-tuning"][key], atol=1e-5, rtol=1e-5)


def test_views_pass_the_frozen_tower_once_and_as_many_as_epochs_are_the_published_run(
    pictures: TrainingSet, whole: dict[str, Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = run(untrained("kgcoop+dept", views=3), pictures)
    assert all(torch.equal(value, whole["kgcoop+dept"][key]) for key, value in same.items())
    method = untrained("kgcoop+dept", views=1)
    passed: list[int] = []
    frozen_inputs = method.frozen_inputs

    def spy(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        passed.append(len(pixels))
        return frozen_inputs(pixels)

    monkeypatch.setattr(method, "frozen_inputs", spy)
    run(method, pictures)
    assert sum(passed) == 12


def test_views_are_for_a_frozen_image_tower() -> None:
    with pytest.raises(OptionError, match="leave the image tower frozen, and skip-tuning does not"):
        registry.make_options("skip-tuning", {"views": 2})
    for name in registry.list_methods():
        registry.make_options(name, {})  # no method's own default is refused
