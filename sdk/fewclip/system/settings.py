"""How operators' settings are read: flags, then the environment, then defaults. Not which."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from fewclip.errors import OptionError

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}
_KINDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def option(default: Any, help: str, *, secret: bool = False) -> Any:
    """A settings field, of its default's type; a tuple is a list of words.

    Args:
        help: for the flag.
        secret: whether to keep its value out of messages and repr.
    """
    metadata = {"help": help, "secret": secret}
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseSettings:
    """Fields made by `option`; each has a flag and an environment variable.

    `max_bytes` has the flag `--max-bytes` and, behind `prefix`, the variable `..._MAX_BYTES`.
    """

    prefix: ClassVar[str]

    @classmethod
    def read(
        cls, given: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
    ) -> Self:
        """What is given (flags; None means not given), else the environment, else the defaults.

        Raises:
            OptionError: a value of the wrong type, or out of range.
        """
        given = given or {}
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            variable = cls.variable(field.name)
            if given.get(field.name) is not None:
                values[field.name] = _parsed(field, given[field.name], flag(field.name))
            elif variable in environ:
                values[field.name] = _parsed(field, environ[variable], variable)
        return cls(**values)

    def to_env(self) -> dict[str, str]:
        """Environment variables that `read` reads back."""
        return {
            self.variable(field.name): _text(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }

    @classmethod
    def variable(cls, name: str) -> str:
        """The environment variable of a field."""
        return cls.prefix + name.upper()

    def check(self, name: str, fine: bool, expected: str) -> None:
        """Refuse a field's value.

        Raises:
            OptionError: it is not `fine`.
        """
        if not fine:
            field = next(f for f in dataclasses.fields(self) if f.name == name)
            raise OptionError(_refusal(field, getattr(self, name), flag(name), expected))


def flag(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def _parsed(field: dataclasses.Field[Any], value: Any, source: str) -> Any:
    """Text -> the type of the field's default; anything else as it is."""
    kind: Any = type(field.default)
    if not isinstance(value, str):
        return value
    if kind is tuple:
        return tuple(word.strip() for word in value.split(",") if word.strip())
    try:
        if kind is bool:
            if value.lower() not in _TRUE | _FALSE:
                raise ValueError
            return value.lower() in _TRUE
        return kind(value)
    except ValueError as error:
        raise OptionError(_refusal(field, value, source, _KINDS[kind])) from error


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _refusal(field: dataclasses.Field[Any], value: Any, source: str, expected: str) -> str:
    shown = "" if field.metadata["secret"] else f", not {value!r}"
    return f"{source} must be {expected}{shown}"
