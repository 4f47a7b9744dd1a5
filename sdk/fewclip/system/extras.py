"""Importing what an extra installs, with the install command if it is missing. No torch."""

from __future__ import annotations

import importlib
from typing import Any

from fewclip.errors import MissingExtraError


def require(module: str, what: str, extra: str) -> Any:
    """The module, imported.

    Args:
        what: what needs it, for people ("reading Parquet").
        extra: the extra that installs it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingExtraError(what, extra) from error
