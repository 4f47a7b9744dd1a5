"""Occlusion: how much less sure a model is with a part of the image covered. Needs outputs alone.

Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, arXiv 1311.2901.
Deviation: a part is not covered with grey but with the mean colour around it: a grey square is
itself a mark, which a defect classifier would react to.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fewclip.explain.explanation import Heat, Question
from fewclip.preprocess import Inputs

CELLS = 8  # rows and columns of parts

# (n, 3, S, S) inputs -> (n, M) log-probabilities.
Answer = Callable[[Inputs], npt.NDArray[np.float64]]


def occlusion(answer: Answer, inputs: Inputs, question: Question) -> Heat:
    """(CELLS, CELLS): what each part adds to the log-probability asked about.

    Args:
        inputs: (3, S, S), preprocessed.
    """
    values = question_score(answer(covered(inputs)), question)
    heat: Heat = (values[0] - values[1:]).reshape(CELLS, CELLS).astype(np.float32)
    return heat


def question_score(
    log_probabilities: npt.NDArray[np.float64], question: Question
) -> npt.NDArray[np.float64]:
    """(n, M) -> (n,): the log-probability asked about, minus that of the contrast."""
    values: npt.NDArray[np.float64] = log_probabilities[:, question.label]
    if question.contrast is not None:
        values = values - log_probabilities[:, question.contrast]
    return values


def covered(inputs: Inputs) -> Inputs:
    """(3, S, S) -> (1 + CELLS * CELLS, 3, S, S): the image itself, then with each part covered."""
    edges = np.linspace(0, inputs.shape[1], CELLS + 1).round().astype(int)
    images = np.repeat(inputs[None], 1 + CELLS * CELLS, axis=0)
    for row in range(CELLS):
        for column in range(CELLS):
            top, bottom = edges[row], edges[row + 1]
            left, right = edges[column], edges[column + 1]
            around = inputs[
                :,
                edges[max(row - 1, 0)] : edges[min(row + 2, CELLS)],
                edges[max(column - 1, 0)] : edges[min(column + 2, CELLS)],
            ]
            part = inputs[:, top:bottom, left:right]
            count = around[0].size - part[0].size
            colour = (around.sum((1, 2)) - part.sum((1, 2))) / count
            place = images[1 + row * CELLS + column, :, top:bottom, left:right]
            place[...] = colour[:, None, None]
    return images
