"""What `adapt` takes besides the images, defined once for all callers. It reads no data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch

from fewclip.classifier import TEMPLATE, check_template
from fewclip.errors import OptionError

AUTO = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """The arguments of `adapt`, which documents them; the command line and the page fill them too.

    Attributes:
        options: fields of the method's options.
    """

    method: str = "auto"
    budget: float | None = None
    keep_best: bool = False
    backbone: str | os.PathLike[str] = "micro"
    shots: int | Literal["all"] = 16
    classes: Sequence[str] | Mapping[str, str] | None = None
    template: str = TEMPLATE
    val: str | float | os.PathLike[str] = "auto"
    epochs: int | None = None
    seed: int = 0
    device: str | torch.device = "auto"
    precision: str = "auto"
    checkpoint: str | os.PathLike[str] | None = None
    fixes: str | os.PathLike[str] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_template(self.template)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise OptionError(f"seed must be a whole number >= 0, got {self.seed!r}")
        if self.budget is not None and not self.budget > 0:
            raise OptionError(f"budget must be a number of seconds above 0, got {self.budget!r}")
        if self.method == AUTO and self.method_options:
            names = ", ".join(sorted(self.method_options))
            raise OptionError(f"method 'auto' chooses {names} itself; name a method to set them")

    @classmethod
    def of(cls, **given: Any) -> Self:
        """From keyword arguments; those that are not fields here are options of the method."""
        fields = {field.name for field in dataclasses.fields(cls)} - {"options"}
        own = {name: value for name, value in given.items() if name in fields}
        return cls(**own, options={k: v for k, v in given.items() if k not in fields})

    @property
    def method_options(self) -> dict[str, Any]:
        """The options that were given, including the number of epochs."""
        return {**self.options} if self.epochs is None else {**self.options, "epochs": self.epochs}
