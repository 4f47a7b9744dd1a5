"""Attention relevance of a class through the whole method, its head included. Torch.

What is explained is the log-probability that the model answers with: `decide.log_probabilities`
in torch, so text, DePT's head and heads on intermediate features all count.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from fewclip.backbone import ClassPrompts
from fewclip.backbone.attention import AttentionMaps, cls_relevance
from fewclip.contract import HeadSpec
from fewclip.explain.explanation import Heat, Question
from fewclip.methods.base import ClassEmbeddings, Method
from fewclip.preprocess import Inputs


def relevance(
    method: Method,
    embeddings: ClassEmbeddings,
    head: HeadSpec,
    temperature: float,
    inputs: Inputs,
    question: Question,
) -> Heat:
    """(rows, columns) of patches: what each adds to the log-probability asked about.

    Args:
        method: on a backbone with blocks.
        inputs: (3, S, S), preprocessed.
    """
    # The caller may be in inference mode, and embeddings were made in it.
    with torch.inference_mode(False), torch.enable_grad():
        pixels = torch.from_numpy(inputs)[None].to(method.backbone.device).requires_grad_()
        with AttentionMaps() as maps:
            features, intermediate = method.features_and_intermediate(pixels)
        itm, cat = method.logits(features, _own_copy(embeddings), intermediate)
        answer = log_probabilities(itm, cat, head, temperature)[0]
        target = answer[question.label]
        if question.contrast is not None:
            target = target - answer[question.contrast]
        gradients = torch.autograd.grad(
            target, maps.probabilities, allow_unused=True, materialize_grads=True
        )
        side = method.backbone.image_grid
        heat = cls_relevance(maps.probabilities, gradients, side * side)
    return heat.detach().reshape(side, side).float().cpu().numpy()


def log_probabilities(
    itm: Tensor, cat: Tensor | None, head: HeadSpec, temperature: float = 1.0
) -> Tensor:
    """`decide.log_probabilities` with gradient: (B, M) and (B, columns) -> (B, M)."""
    log_q = itm.log_softmax(1)
    trained = list(head.trained)
    if cat is not None and head.dept_weight is not None and trained:
        own = cat[:, [head.columns[i] for i in trained]]
        fused = (1 - head.dept_weight) * itm[:, trained] + head.dept_weight * own
        share = log_q[:, trained].logsumexp(1, keepdim=True)
        log_q = log_q.index_copy(
            1, torch.tensor(trained, device=itm.device), share + fused.log_softmax(1)
        )
    return (log_q / temperature).log_softmax(1)


def _own_copy(embeddings: ClassEmbeddings) -> ClassEmbeddings:
    """A copy whose tensors autograd may record."""
    prompts, features = embeddings.prompts, embeddings.features
    copied = ClassPrompts(prompts.prefix.clone(), prompts.suffix.clone(), prompts.eot.clone())
    return dataclasses.replace(
        embeddings, prompts=copied, features=None if features is None else features.clone()
    )
