"""Plain JSON -> typed dataclasses, or one error that names the field. No files, no card's fields.

The schema is the dataclasses themselves: their annotations say the types, their `__post_init__`
the ranges, so a new field of the card is checked without being listed a second time. An open
mapping may declare its known keys in its annotation:
`Annotated[Mapping[str, Any], SomeTypedDict]` checks the keys that the TypedDict names, and allows
any JSON in others.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fewclip.errors import ArtifactError

MAX_DEPTH = 32  # far below Python's recursion limit; a real card has 5
MAX_WHOLE = 2**63

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def read(kind: Any, value: Any, where: str) -> Any:
    """`value`, as `json.loads` gave it, as the type `kind`.

    Args:
        kind: a dataclass, a TypedDict, or a type made of int, float, str, bool, None, Any, Literal,
            tuple, Sequence and Mapping.
        where: the value's name in the error.

    Raises:
        ArtifactError: it does not fit; says which field, what is wanted and what was found.
    """
    check_plain(value, where)
    return _read(kind, value, where)


def check_plain(value: Any, where: str, depth: int = 0) -> None:
    """Refuse what JSON's grammar allows and no card needs: NaN, huge numbers, nesting, broken text.

    Raises:
        ArtifactError: names the field.
    """
    if depth > MAX_DEPTH:
        raise ArtifactError(f"{shown(where)} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        for key, part in value.items():
            check_plain(key, f"{where}, a key", depth + 1)
            check_plain(part, f"{where}.{key}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            check_plain(part, f"{where}[{index}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _misfit(where, "a finite number", value)
    elif isinstance(value, int):
        if not -MAX_WHOLE <= value < MAX_WHOLE:
            raise ArtifactError(f"{shown(where)} must be a whole number below 2^63")
    elif isinstance(value, str) and not _encodes(value):
        raise _misfit(where, "text that is valid Unicode", value)


def shown(value: Any, limit: int = 80) -> str:
    """A value for a message: on one line and short."""
    text = value if isinstance(value, str) and len(value) <= limit else repr(value)
    text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _read(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is type(None):
        return _expect(value is None, where, "null", value)
    if kind in _NAMES:
        return _scalar(kind, value, where)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    if typing.is_typeddict(kind):
        return _open_mapping(kind, value, where)
    return _generic(kind, value, where)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    accepted = (int, float) if kind is float else kind
    fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    return kind(_expect(fits, where, _NAMES[kind], value))


def _generic(kind: Any, value: Any, where: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        for facts in parts[1:]:
            _read(facts, value, where)
        return _read(parts[0], value, where)
    if origin is Literal:
        fits = any(type(value) is type(each) and value == each for each in parts)
        return _expect(fits, where, "one of " + ", ".join(map(repr, parts)), value)
    if origin in (Union, types.UnionType):
        return _union(parts, value, where)
    if origin is tuple:
        return _tuple(parts, value, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _expect(isinstance(value, Mapping), where, "an object", value)
        return {str(k): _read(parts[1], v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        _expect(isinstance(value, list | tuple), where, "a list", value)
        return [_read(parts[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise AssertionError(f"{where} is annotated as {kind!r}, which no schema reads")


def _union(kinds: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    refusals = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return _read(kind, value, where)
            except ArtifactError as error:
                refusals.append(error)
    raise refusals[0]


def _tuple(kinds: Sequence[Any], value: Any, where: str) -> tuple[Any, ...]:
    _expect(isinstance(value, list | tuple), where, "a list", value)
    if kinds[-1] is Ellipsis:
        kinds = [kinds[0]] * len(value)
    _expect(len(value) == len(kinds), where, f"a list of {len(kinds)}", value)
    return tuple(
        _read(kind, part, f"{where}[{index}]")
        for index, (kind, part) in enumerate(zip(kinds, value, strict=True))
    )


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, Mapping), where, "an object", value)
    hints = _hints(kind, annotated=True)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ArtifactError(
            f"{where} has {shown(', '.join(unknown))}, which this fewclip does not know; "
            "update fewclip or save the model again"
        )
    given = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            given[field.name] = _read(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise _missing(where, field.name)
    return kind(**given)


@functools.cache  # a hint is text, which Python compiles anew each time that it is asked
def _hints(kind: Any, *, annotated: bool) -> Mapping[str, Any]:
    return typing.get_type_hints(kind, include_extras=annotated)


def _open_mapping(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, Mapping), where, "an object", value)
    for name, hint in _hints(kind, annotated=False).items():
        if name in value:
            _read(hint, value[name], f"{where}.{name}")
        elif name in kind.__required_keys__:
            raise _missing(where, name)
    return value


def _expect(fits: bool, where: str, wanted: str, value: Any) -> Any:
    if not fits:
        raise _misfit(where, wanted, value)
    return value


def _misfit(where: str, wanted: str, value: Any) -> ArtifactError:
    return ArtifactError(
        f"{shown(where)} must be {wanted}, not {shown(repr(value))}; save or export the model again"
    )


def _missing(where: str, name: str) -> ArtifactError:
    return ArtifactError(f"{where} lacks {name!r}; save or export the model again")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
