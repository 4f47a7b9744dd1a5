"""What the page allows, from flags or the environment. It enforces nothing itself."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from fewclip.errors import OptionError
from fewclip.system.settings import BaseSettings, option

MEBI = 1024**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """Limits and access of one page; each field has a flag and a FEWCLIP_APP_* variable."""

    prefix: ClassVar[str] = "FEWCLIP_APP_"

    max_files: int = option(2000, "images that one person may upload")
    max_classes: int = option(200, "classes that one person may make")
    max_bytes: int = option(512 * MEBI, "bytes of one uploaded file")
    max_total_bytes: int = option(2048 * MEBI, "bytes that one person may keep, unpacked")
    max_upload_bytes: int = option(
        8192 * MEBI, "bytes of uploads that are not deleted yet, all people together"
    )
    max_pixels: int = option(50_000_000, "pixels of one image")
    trainings: int = option(1, "people whose models are trained at once; the others wait")
    keep_minutes: int = option(60, "how long images and models outlive a closed page")
    backbones: tuple[str, ...] = option(
        ("micro", "ViT-B-32/openai", "ViT-B-16/openai", "ViT-L-14/openai"),
        "backbones to choose from, separated by commas; the first one is the default",
    )
    device: str = option("auto", "'auto', 'cpu' or 'cuda'")
    hosts: tuple[str, ...] = option(
        (), "names, besides localhost and IP addresses, that browsers may call the page by"
    )
    user: str = option("", "ask for this user name; needs a password")
    password: str = option(
        "", "safer in the environment, where other users don't see it", secret=True
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(field.default, int):
                value = getattr(self, field.name)
                whole = isinstance(value, int) and value >= 1
                self.check(field.name, whole, "a whole number of at least 1")
        named = bool(self.backbones) and all(self.backbones)
        self.check("backbones", named, "one name at least, such as 'micro'")
        if bool(self.user) != bool(self.password):
            raise OptionError("user and password belong together; give both or none")
