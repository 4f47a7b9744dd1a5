"""Methods by name. A method is one module of this package; nothing here lists them by hand."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewclip.errors import OptionError
from fewclip.preprocess import AUGMENTATIONS

if TYPE_CHECKING:
    import torch

    from fewclip.backbone import Backbone
    from fewclip.methods.base import Method

_FOLDER = Path(__file__).parent
_NOT_METHODS = {
    "base",
    "class_blocks",
    "dept",
    "frozen_head",
    "linear_head",
    "prompts",
    "registry",
    "tuned_head",
    "tuned_tower",
}
DEPT = "+dept"
ALIASES = {"dept": "kgcoop+dept"}
DEPT_FIELDS = ("dept_weight", "dept_lr")


@functools.cache
def method_classes() -> dict[str, type[Method]]:
    """Every method's class by the method's name; imports torch."""
    from fewclip.methods.base import Method

    found: dict[str, type[Method]] = {}
    for name, path in _modules().items():
        module = importlib.import_module(path)
        found[name] = next(
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Method)
            and vars(value).get("name") == name
        )
    return found


@functools.cache
def _source(module: str) -> ast.Module:
    """A module of this package, parsed: listing methods needs neither torch nor a second."""
    return ast.parse(_FOLDER.joinpath(*module.split(".")[2:]).with_suffix(".py").read_text("utf-8"))


@functools.cache
def _modules() -> Mapping[str, str]:
    """Method -> the module that defines it, in this folder or one below; `a__b` defines a+b."""
    found = {}
    for info in pkgutil.walk_packages([str(_FOLDER)], "fewclip.methods."):
        name = info.name.rpartition(".")[2]
        if name not in _NOT_METHODS and not info.ispkg:
            found[name.replace("__", "+").replace("_", "-")] = info.name
    return found


@functools.cache
def _flag(module: str, field: str) -> bool:
    """A class flag, such as `dept_ready`, of a method's class or its nearest base class."""
    source = _source(module)
    for node in ast.walk(source):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == field:
            return node.value is not None and ast.unparse(node.value) == "True"
    bases = {
        ast.unparse(base)
        for node in source.body
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    }
    above = [
        str(node.module)
        for node in source.body
        if isinstance(node, ast.ImportFrom)
        and str(node.module).startswith("fewclip.methods.")
        and bases & {alias.name for alias in node.names}
    ]
    return all(_flag(each, field) for each in above)


def list_methods() -> list[str]:
    """Every name that `adapt(method=...)` takes, besides the alias 'dept' for 'kgcoop+dept'."""
    modules = _modules()
    lifted = [name + DEPT for name, module in modules.items() if _flag(module, "dept_ready")]
    return sorted([*modules, *lifted])


def needs_blocks(name: str) -> bool:
    """Whether a method reaches into the towers' residual blocks, so features are not enough."""
    return _flag(_modules()[resolve(name).removesuffix(DEPT)], "needs_blocks")


def feature_methods() -> list[str]:
    """The methods that work with every open_clip model."""
    return [name for name in list_methods() if not needs_blocks(name)]


def check_backbone(method: str, backbone: str, reason: str | None) -> None:
    """Refuse a method that needs residual blocks where there are none.

    Args:
        backbone: its name.
        reason: why it has no blocks; None or empty if it has them.

    Raises:
        OptionError: says which methods work.
    """
    if reason and needs_blocks(method):
        raise OptionError(
            f"{resolve(method)} changes the towers' residual blocks, and those of {backbone!r} are "
            f"out of its reach: {reason}; these work with it: {', '.join(feature_methods())}"
        )


def resolve(name: str) -> str:
    """The full name of a method.

    Raises:
        OptionError: no such method.
    """
    full = ALIASES.get(name, name)
    if full not in list_methods():
        raise OptionError(f"unknown method {name!r}; available: {', '.join(list_methods())}")
    return full


def describe(name: str) -> str:
    """First sentence of what a method is, for lists."""
    full = resolve(name)
    text = (ast.get_docstring(_source(_modules()[full.removesuffix(DEPT)])) or "").split("\n", 1)[0]
    return f"{text} With DePT." if full.endswith(DEPT) else text


def make_options(
    name: str, given: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All options of a method as a plain dict: its defaults, the backbone's, then what was given.

    `augment` ("published", "gentle" or "none") sets `crop_area` and `flip`, where
    those are not given.

    Raises:
        OptionError: an unknown option, or a value out of range.
    """
    from fewclip.methods.dept import DePTOptions

    full = resolve(name)
    cls = method_classes()[full.removesuffix(DEPT)]
    known = {f.name for f in dataclasses.fields(cls.Options)}
    known |= {"augment"} | (set(DEPT_FIELDS) if full.endswith(DEPT) else set())
    unknown = sorted(set(given) - known)
    if unknown:
        raise OptionError(
            f"{full} has no option {', '.join(unknown)}; it has: {', '.join(sorted(known))}"
        )
    merged = {**(defaults or {}), **_augmentation(given), **given}
    merged.pop("augment", None)
    dept = _taken(merged, DEPT_FIELDS) if full.endswith(DEPT) else {}
    try:
        options = dataclasses.asdict(cls.Options(**merged))
        # A warm-up as long as the run would leave no training.
        options["warmup_epochs"] = min(options["warmup_epochs"], options["epochs"] - 1)
    except TypeError as error:
        raise OptionError(f"an option of {full} has the wrong type: {error}") from error
    if options["views"] and not cls.reads("views"):
        raise OptionError(
            f"option views is for methods that leave the image tower frozen, and {full} does not; "
            "leave it out"
        )
    if full.endswith(DEPT):
        options |= dataclasses.asdict(DePTOptions(**dept))
    return options


def option_defaults(name: str) -> dict[str, Any]:
    """The options that a method reads, with their defaults."""
    cls = method_classes()[resolve(name).removesuffix(DEPT)]
    return {key: value for key, value in make_options(name, {}).items() if cls.reads(key)}


def _augmentation(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that `augment` stands for; those given by name override it.

    Raises:
        OptionError: no such augmentation.
    """
    name = given.get("augment")
    if name is None:
        return {}
    if name not in AUGMENTATIONS:
        raise OptionError(f"option augment must be {', '.join(AUGMENTATIONS)}; got {name!r}")
    return AUGMENTATIONS[name]


def backbone_defaults(name: str, backbone: Backbone) -> Mapping[str, Any]:
    """The backbone's own defaults for a method, chosen by measurement.

    In `Backbone.method_defaults`, "" holds for all, and a method's also for it with an addition.
    """
    full, found = resolve(name), backbone.method_defaults
    plain = found.get(full.partition("+")[0], {})
    return {**found.get("", {}), **plain, **found.get(full, {})}


def build(
    name: str,
    backbone: Backbone,
    options: Mapping[str, Any],
    *,
    template: str,
    phrases: Sequence[str],
    generator: torch.Generator,
) -> Method:
    """An untrained method; `options` is what `make_options` returned."""
    from fewclip.methods.dept import DePTOptions

    full = resolve(name)
    check_backbone(full, backbone.name, backbone.features_only)
    cls = method_classes()[full.removesuffix(DEPT)]
    own = dict(options)
    dept = DePTOptions(**_taken(own, DEPT_FIELDS)) if full.endswith(DEPT) else None
    return cls(
        backbone,
        cls.Options(**own),
        template=template,
        n_classes=len(phrases),
        generator=generator,
        dept=dept,
    )


def _taken(options: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Pop the options of these names, as far as there are any."""
    return {name: options.pop(name) for name in names if name in options}
