"""The reference of settings lists every setting, its default and its help, and no other."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from fewclip.images import FORMATS, FORMATS_VARIABLE
from fewclip.system.settings import BaseSettings
from fewclip_app.settings import Settings as PageSettings
from fewclip_service.settings import Settings as ServiceSettings

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text()


@pytest.mark.parametrize("settings", [ServiceSettings, PageSettings])
def test_every_setting_is_listed_with_its_default(settings: type[BaseSettings]) -> None:
    for field in dataclasses.fields(settings):
        default = field.default
        text = ", ".join(default) if isinstance(default, tuple) else str(default)
        shown = f" `{text}` " if text else " "
        variable = settings.variable(field.name)
        assert f"| `{variable}` |{shown}| {field.metadata['help']} |" in TEXT


def test_no_other_is_listed() -> None:
    listed = set(re.findall(r"^\| `(FEWCLIP_[A-Z_]+)`", TEXT, re.MULTILINE))
    known = {
        settings.variable(field.name)
        for settings in (ServiceSettings, PageSettings)
        for field in dataclasses.fields(settings)
    }
    assert listed == known | {FORMATS_VARIABLE}
    assert f"`{', '.join(FORMATS)}`" in TEXT
