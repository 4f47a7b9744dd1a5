"""The methods, one module each. A new method is one new file here and touches no other.

`fewclip.methods` is this package and, in the facade, also the function that lists the methods:
importing any of its modules binds the package to that name, so the package itself is callable.
"""

from __future__ import annotations

import pkgutil
import sys
import types


def list_methods() -> list[str]:
    """Names that `adapt(method=...)` takes, those with `+dept` included."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


class _CallablePackage(types.ModuleType):
    def __call__(self) -> list[str]:
        return list_methods()


sys.modules[__name__].__class__ = _CallablePackage
