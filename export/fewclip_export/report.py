"""How an export compares with the trained model: numbers, and text for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """How the answers of an exported folder compare with the trained model's.

    Attributes:
        images: image files compared, in batches; `origin` describes them.
        images_alone: how many of these were also compared one at a time.
        near_ties: how many of these are left out of the agreement, because the trained model's
            two best answers are within 0.001.
        max_abs_diff: largest logit difference over all heads, batch sizes and class sets.
        top1_agreement: share of images with the same best class at every batch size that
            they were run at, 0..1.
        new_class_agreement: the same with classes added by name through `text.onnx`; None where
            the backbone's tokenizer has no exported form, so the classes are fixed.
        known_agreement: share of images that both call known, or both unknown, 0..1.
        labelled: number of images whose class is known.
        accuracy_change: exported minus trained, on the user's own labelled images as they are
            (-0.01 is one point lost); None if there are none.
        accuracy_change_all: the same with augmented views of them; what the gate checks.
        speed_vs_fp32: images per second relative to the float32 export, on CPU, measured
            alternately in the same run.
    """

    images: int
    images_alone: int
    origin: str
    near_ties: int
    max_abs_diff: float
    top1_agreement: float
    new_class_agreement: float | None
    known_agreement: float
    labelled: int
    accuracy_change: float | None
    accuracy_change_all: float | None
    speed_vs_fp32: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportReport(Findings):
    """The findings, and the files that were written.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        folder: where it was written.
        files: file name -> bytes, without the card.
        size: of all files, bytes.
        float_products: matrix products of an int8 graph that stay in float32 because the gate
            refused the graph with all of them quantised; the most sensitive first.
        failures: why the gate refused; empty unless the export was forced.
        forced: whether it was written despite failures.
    """

    precision: str
    folder: str
    files: Mapping[str, int]
    size: int
    float_products: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def forced(self) -> bool:
        return bool(self.failures)

    def to_dict(self) -> dict[str, Any]:
        """The report in plain JSON types."""
        plain = dataclasses.asdict(self)
        lists = {"failures": list(self.failures), "float_products": list(self.float_products)}
        return {**plain, **lists, "forced": self.forced}

    def __str__(self) -> str:
        change = "not measured, no labels"
        if self.accuracy_change is not None:
            change = f"{100 * self.accuracy_change:+.2f} points"
        lines = [
            f"{self.precision}, {self.size / 1e6:.1f} MB",
            f"compared on {self.images} image files: {self.origin}",
            f"also one at a time        {self.images_alone} of them",
            f"largest logit difference  {self.max_abs_diff:.2g}",
            f"same best class           {self.top1_agreement:.2%}"
            + (f" ({self.near_ties} near ties left out)" if self.near_ties else ""),
            f"same with added classes   {_share(self.new_class_agreement)}",
            f"same on what is unknown   {self.known_agreement:.2%}",
            f"accuracy change           {change}",
            f"speed beside fp32 (CPU)   {self.speed_vs_fp32:.2f}x",
        ]
        return "\n".join([*lines, *(f"FORCED IN SPITE OF: {f}" for f in self.failures)])


def _share(share: float | None) -> str:
    return "none can be added to this export" if share is None else f"{share:.2%}"
