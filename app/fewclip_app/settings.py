"""What the page allows, from flags or the environment. It enforces nothing itself."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from fewclip.errors import OptionError

PREFIX = "FEWCLIP_APP_"
MEBI = 1024**2


def _setting(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and access of one page; each field has a flag and a FEWCLIP_APP_* variable."""

    max_files: int = _setting(2000, "images that one person may upload")
    max_classes: int = _setting(200, "classes that one person may make")
    max_bytes: int = _setting(512 * MEBI, "bytes of one uploaded file")
    max_total_bytes: int = _setting(2048 * MEBI, "bytes that one person may keep, unpacked")
    max_upload_bytes: int = _setting(
        8192 * MEBI, "bytes of uploads that are not deleted yet, all people together"
    )
    max_pixels: int = _setting(50_000_000, "pixels of one image")
    trainings: int = _setting(1, "people whose models are trained at once; the others wait")
    keep_minutes: int = _setting(60, "how long images and models outlive a closed page")
    backbones: tuple[str, ...] = _setting(
        ("micro", "ViT-B-32/openai", "ViT-B-16/openai", "ViT-L-14/openai"),
        "backbones to choose from, separated by commas; the first one is the default",
    )
    device: str = _setting("auto", "'auto', 'cpu' or 'cuda'")
    hosts: tuple[str, ...] = _setting(
        (), "names, besides localhost and IP addresses, that browsers may call the page by"
    )
    user: str = _setting("", "ask for this user name; needs a password")
    password: str = _setting("", "safer in the environment, where other users don't see it")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, int) and (not isinstance(value, int) or value < 1):
                raise OptionError(f"{field.name} must be a whole number from 1 on, got {value!r}")
        if not self.backbones or not all(self.backbones):
            raise OptionError("backbones must name at least one, such as 'micro'")
        if bool(self.user) != bool(self.password):
            raise OptionError("user and password belong together; give both or none")

    @classmethod
    def read(
        cls, given: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
    ) -> Settings:
        """What is given (flags; None means not given), else the environment, else the defaults.

        Raises:
            OptionError: a value out of range.
        """
        env = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            value = (given or {}).get(field.name)
            if value is None:
                value = env.get(PREFIX + field.name.upper())
            if value is not None:
                values[field.name] = _parsed(field.name, value, field.default)
        return cls(**values)


def _parsed(name: str, value: Any, default: Any) -> Any:
    """Text -> the type of the default."""
    if not isinstance(value, str):
        return value
    if isinstance(default, tuple):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(default, int):
        try:
            return int(value)
        except ValueError:
            raise OptionError(f"{name} must be a whole number, got {value!r}") from None
    return value
