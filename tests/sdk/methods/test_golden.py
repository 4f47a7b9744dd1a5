"""The product's methods, trainer step and backbone against the authors' own numbers."""

from __future__ import annotations

from typing import Any

import golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewclip.methods.skip_tuning import SkipTuning, class_mask, sampled_classes
from fewclip.training.loop import learning_rate

OFFICIAL = {"context": "prompt_learner.ctx", **golden.DEPT_NAMES}


def tower_name(ours: str) -> str:
    return (
        "image_encoder." + ours.removeprefix("visual.")
        if ours.startswith("visual.")
        else "text_encoder." + ours
    )


PROMPT_ROWS = {
    "coop": ("coop", {"n_ctx": 4}),
    "kgcoop": ("kgcoop", {}),
    "dept_coop": ("coop+dept", {"n_ctx": 4}),
    "dept_kgcoop": ("kgcoop+dept", {}),
}


@pytest.mark.parametrize("file", PROMPT_ROWS)
def test_golden_prompt_methods(file: str) -> None:
    arrays, meta = golden.read(file)
    name, options = PROMPT_ROWS[file]
    method = golden.make(name, meta, lr=meta["lr"], **options)
    golden.start_as_official(method, meta, OFFICIAL)
    found = golden.run(method, arrays, meta)
    golden.check_norms(found.norms, meta, OFFICIAL)
    np.testing.assert_allclose(found.losses, arrays["losses"], rtol=1e-5)
    base = golden.evaluate(method, meta["classes"], meta["dept_weight"])
    np.testing.assert_allclose(base, arrays["logits_eval"], atol=1e-4)
    new = golden.evaluate(method, meta["new_classes"])
    np.testing.assert_allclose(new, arrays["logits_new_eval"], atol=1e-4)


def test_golden_fine_tune() -> None:
    arrays, meta = golden.read("fine_tune")
    method = golden.make("fine-tune", meta, lr=meta["lr"])
    found = golden.run(method, arrays, meta)
    official = {name: tower_name(name) for name in method.trained_parameters()}
    golden.check_norms(found.norms, meta, official)
    np.testing.assert_allclose(found.losses, arrays["losses"], rtol=1e-5)
    np.testing.assert_allclose(
        golden.evaluate(method, meta["classes"]), arrays["logits_eval"], atol=1e-4
    )


@pytest.fixture
def skip() -> tuple[SkipTuning, dict[str, np.ndarray], Any]:
    arrays, meta = golden.read("skip_tuning")
    method = golden.make(
        "skip-tuning",
        meta,
        omega=meta["start_layer"],
        top_ratio=meta["top_ratio"],
        lam=meta["lam"],
        max_top=meta["max_top"],
        text_lr=meta["text_lr"],
        image_lr=meta["image_lr"],
    )
    assert isinstance(method, SkipTuning)
    method.mask = class_mask(
        torch.from_numpy(arrays["uniform"]), meta["top_ratio"], meta["lam"], meta["max_top"]
    )
    return method, arrays, meta


def test_golden_skip_tuning_before_training(skip: Any) -> None:
    """Hidden states before block omega, zero-shot features and logits, and the mask over ranks."""
    method, arrays, meta = skip
    assert np.array_equal(method.mask.numpy(), arrays["reserve_mask"])
    method.setup(meta["classes"])
    with torch.no_grad():
        eval_images = golden.images("eval", 8)
        (hidden,) = method.frozen_inputs(eval_images)
        np.testing.assert_allclose(
            hidden.transpose(0, 1).numpy(), arrays["image_hidden_eval"], atol=1e-5
        )
        prefix, suffix = method.hidden.prefix[0], method.hidden.suffix[0]
        for m, end in enumerate(method.hidden.eot.tolist()):
            own = torch.cat([prefix, suffix[m, : end + 1]]).numpy()
            np.testing.assert_allclose(own, arrays["text_hidden"][: len(own), m], atol=1e-5)
        text = method.text_features(method.prompts)
        np.testing.assert_allclose(text.numpy(), arrays["text_features"], atol=1e-5)
        image = method.image_features(eval_images)
        np.testing.assert_allclose(image.numpy(), arrays["image_features_eval"], atol=1e-5)
    np.testing.assert_allclose(
        golden.evaluate(method, meta["classes"]), arrays["logits_eval_before"], atol=1e-4
    )


def test_golden_skip_tuning_training(skip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method, arrays, meta = skip
    kept: list[np.ndarray] = []

    def record(*args: Any) -> torch.Tensor:
        classes = sampled_classes(*args)
        kept.append(np.isin(np.arange(len(meta["classes"])), classes.numpy()))
        return classes

    monkeypatch.setattr("fewclip.methods.skip_tuning.sampled_classes", record)
    found = golden.run(method, arrays, meta)
    official = {name: tower_name(name) for name in method.trained_parameters()}
    golden.check_norms(found.norms, meta, official)
    assert np.array_equal(np.array(kept), arrays["kept_classes"])
    np.testing.assert_allclose(found.losses, arrays["losses"], rtol=1e-5)
    np.testing.assert_allclose(
        golden.evaluate(method, meta["classes"]), arrays["logits_eval_after"], atol=1e-4
    )


def test_golden_learning_rates() -> None:
    arrays, _ = golden.read("skip_tuning")
    options = SkipTuning.Options()
    for epoch, (text, image) in enumerate(arrays["lr_per_epoch"]):
        for base, wanted in ((options.text_lr, text), (options.image_lr, image)):  # type: ignore
            found = learning_rate(base, epoch, options.epochs, options)
            assert found == pytest.approx(wanted, rel=1e-6)


def test_golden_cskip() -> None:
    arrays, cases = golden.read("cskip")
    for k, case in enumerate(cases):
        uniform = torch.from_numpy(arrays[f"uniform_{k}"])
        mask = class_mask(uniform, case["top_ratio"], case["lam"], case["max_top"])
        labels = torch.from_numpy(arrays[f"labels_{k}"])
        features = torch.from_numpy(arrays[f"features_{k}"])
        prototypes = F.normalize(torch.from_numpy(arrays[f"prototypes_{k}"]), dim=-1)
        kept = sampled_classes(features, prototypes, labels, mask)
        wanted = (
            np.flatnonzero(arrays[f"kept_{k}"])
            if arrays[f"kept_{k}"].dtype == bool
            else arrays[f"kept_{k}"]
        )
        assert np.array_equal(kept.numpy(), wanted), case
        renumbered = torch.searchsorted(kept, labels)
        assert np.array_equal(renumbered.numpy(), arrays[f"new_labels_{k}"]), case
