"""CoCoOp, MaPLe, PromptSRC and CLIP-Adapter, some with DePT, against the authors' own numbers."""

from __future__ import annotations

from typing import Any

import golden
import numpy as np
import pytest

LEARNER = "prompt_learner"
COCOOP = {
    "context": f"{LEARNER}.ctx",
    "meta_net.0.weight": f"{LEARNER}.meta_net.linear1.weight",
    "meta_net.0.bias": f"{LEARNER}.meta_net.linear1.bias",
    "meta_net.2.weight": f"{LEARNER}.meta_net.linear2.weight",
    "meta_net.2.bias": f"{LEARNER}.meta_net.linear2.bias",
}
MAPLE = {
    "context": f"{LEARNER}.ctx",
    "text_prompts.0": f"{LEARNER}.compound_prompts_text.0",
    "text_prompts.1": f"{LEARNER}.compound_prompts_text.1",
    "projections.0.weight": f"{LEARNER}.proj.weight",
    "projections.0.bias": f"{LEARNER}.proj.bias",
    "projections.1.weight": f"{LEARNER}.compound_prompt_projections.0.weight",
    "projections.1.bias": f"{LEARNER}.compound_prompt_projections.0.bias",
    "projections.2.weight": f"{LEARNER}.compound_prompt_projections.1.weight",
    "projections.2.bias": f"{LEARNER}.compound_prompt_projections.1.bias",
}
PROMPTSRC = {
    "context": f"{LEARNER}.ctx",
    "text_prompts.0": "text_encoder.transformer.resblocks.1.VPT_shallow",
    "text_prompts.1": "text_encoder.transformer.resblocks.2.VPT_shallow",
    "image_prompts.0": "image_encoder.VPT",
    "image_prompts.1": "image_encoder.transformer.resblocks.1.VPT_shallow",
    "image_prompts.2": "image_encoder.transformer.resblocks.2.VPT_shallow",
}
CLIP_ADAPTER = {
    "adapter.0.weight": "adapter.fc.0.weight",
    "adapter.2.weight": "adapter.fc.2.weight",
}

# File -> method, our parameters' names in the official code, options from the file's `meta`.
ROWS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "cocoop": ("cocoop", COCOOP, {}),
    "dept_cocoop": ("cocoop+dept", COCOOP, {"dept_weight": "dept_weight"}),
    "maple": ("maple", MAPLE, {"depth": "prompt_depth", "n_ctx": "n_ctx"}),
    "dept_maple": (
        "maple+dept",
        MAPLE,
        {"depth": "prompt_depth", "n_ctx": "n_ctx", "dept_weight": "dept_weight"},
    ),
    "promptsrc": (
        "promptsrc",
        PROMPTSRC,
        {
            "depth": "depth",
            "n_image_ctx": "n_ctx_vision",
            "text_weight": "text_loss_weight",
            "image_weight": "image_loss_weight",
            "templates": "templates",
        },
    ),
    "clip_adapter": ("clip-adapter", CLIP_ADAPTER, {"ratio": "ratio", "reduction": "reduction"}),
}


# The published code of these fixes its widths, so their CLIP has 66 million weights to draw.
WIDE = ("maple", "dept_maple", "clip_adapter")


@pytest.mark.parametrize(
    "file", [pytest.param(f, marks=pytest.mark.slow if f in WIDE else ()) for f in ROWS]
)
def test_golden_family(file: str) -> None:
    """Losses, each loss term, gradient norms, and logits on trained and new classes."""
    arrays, meta = golden.read(file)
    name, official, from_meta = ROWS[file]
    official = {**official, **golden.DEPT_NAMES}
    options: dict[str, Any] = {ours: meta[theirs] for ours, theirs in from_meta.items()}
    method = golden.make(name, meta, lr=meta["lr"], **options)
    golden.start_as_official(method, meta, official)
    found = golden.run(method, arrays, meta)
    golden.check_norms(found.norms, meta, official)
    np.testing.assert_allclose(found.losses, arrays["losses"], rtol=1e-5)
    if "loss_terms" in arrays:
        np.testing.assert_allclose(found.terms, arrays["loss_terms"], rtol=1e-5, atol=1e-6)
    base = golden.evaluate(method, meta["classes"], meta.get("dept_weight"))
    np.testing.assert_allclose(base, arrays["logits_eval"], atol=1e-4)
    if "logits_new_eval" in arrays:
        new = golden.evaluate(method, meta["new_classes"])
        np.testing.assert_allclose(new, arrays["logits_new_eval"], atol=1e-4)
