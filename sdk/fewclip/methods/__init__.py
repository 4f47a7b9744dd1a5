"""The methods: one module each, found by name in `registry`.

`fewclip.methods()` and this package share a name, so the package is callable.
"""

from __future__ import annotations

import sys
import types

from fewclip.methods.registry import (
    backbone_defaults,
    build,
    describe,
    list_methods,
    make_options,
    option_defaults,
    resolve,
)

__all__ = [
    "backbone_defaults",
    "build",
    "describe",
    "list_methods",
    "make_options",
    "option_defaults",
    "resolve",
]


class _CallablePackage(types.ModuleType):
    def __call__(self) -> list[str]:
        return list_methods()


sys.modules[__name__].__class__ = _CallablePackage
