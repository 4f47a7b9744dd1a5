"""What an export is worth beside the trained model: numbers, and a text for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """How an exported folder answers beside the trained model.

    Attributes:
        images: image files compared; `origin` describes them.
        near_ties: of these, left out of the agreement: the trained model's own best two answers
            lie closer than 0.001.
        max_abs_diff: largest difference of a logit, any head, batch size or class set.
        top1_agreement: share of images with the same best class at every batch size, 0..1.
        new_class_agreement: the same with classes added by name through `text.onnx`; None where
            the backbone's tokenizer has no exported form, so the classes are fixed.
        known_agreement: share of images that both hold for known, or both for unknown, 0..1.
        labelled: images whose class is known.
        accuracy_change: exported minus trained, on the user's own labelled images as they are
            (-0.01 is one point lost); None where there is none.
        accuracy_change_all: the same with augmented views of them; what the gate looks at.
        speed_vs_fp32: images a second beside the float32 export, CPU, measured in turns in the
            same run.
    """

    images: int
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
    """The findings, and what the folder takes.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        folder: where it was written.
        files: file name -> bytes, the card apart.
        size: of all files, bytes.
        float_products: matrix products of an int8 graph that stay in float32 since the gate refused
            it without; the most sensitive first.
        failures: what the gate objects to; empty unless it was forced.
        forced: written in spite of failures.
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
        """Plain JSON types only."""
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
