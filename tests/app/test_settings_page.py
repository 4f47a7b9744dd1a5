"""The reference of settings lists every setting, its default and its help, and no other."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from fewclip.images import FORMATS, FORMATS_VARIABLE
from fewclip_app import settings as page
from fewclip_service import settings as service

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text()


@pytest.mark.parametrize("where", [service, page])
def test_every_setting_is_listed_with_its_default(where: Any) -> None:
    for field in dataclasses.fields(where.Settings):
        default = field.default
        text = ", ".join(default) if isinstance(default, tuple) else str(default)
        shown = f" `{text}` " if text else " "
        variable = f"{where.PREFIX}{field.name.upper()}"
        assert f"| `{variable}` |{shown}| {field.metadata['help']} |" in TEXT


def test_no_other_is_listed() -> None:
    listed = set(re.findall(r"^\| `(FEWCLIP_[A-Z_]+)`", TEXT, re.MULTILINE))
    known = {
        f"{where.PREFIX}{field.name.upper()}"
        for where in (service, page)
        for field in dataclasses.fields(where.Settings)
    }
    assert listed == known | {FORMATS_VARIABLE}
    assert f"`{', '.join(FORMATS)}`" in TEXT
