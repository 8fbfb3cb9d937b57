"""All that is public in the groups of formulas, each with its valid calls, by name.

`functional.softmax`, `attention.KVCache` (the constructor), `attention.KVCache.update`. Not here:
which arguments are replaced.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from tests.fuzz.functions import functions
from tests.fuzz.objects import Method, objects
from tests.laws.calls import CALLS, Call

GROUPS = ("attention", "components", "functional", "inference", "norm", "rl", "training")
MADE = "made by "  # before the name of an argument of the constructor, in the call of a method


class NotReadyError(Exception):
    """What comes before the call has refused an argument of the constructor."""


@dataclass(frozen=True)
class Valid:
    """A valid call: values by the names of parameters, and how a call with other ones is made."""

    values: dict[str, Any]
    hints: dict[str, Any]
    make: Callable[[dict[str, Any]], Any]


@dataclass
class Target:
    """What is called, and its valid calls, at least one."""

    name: str
    valid: list[Valid] = field(default_factory=list)


def public() -> set[str]:
    """Each public function, class, and method or property that a class of ours defines."""
    found = set()
    for group in GROUPS:
        door = import_module(f"llmref.{group}")
        for name in dir(door):
            it = getattr(door, name)
            if inspect.isfunction(it) or inspect.isclass(it):
                found.add(f"{group}.{name}")
            if inspect.isclass(it):
                found |= {f"{group}.{name}.{inner}" for inner in _methods(it)}
    return found


def _methods(cls: type) -> set[str]:
    kinds = (classmethod, staticmethod, property)
    return {
        name
        for name, it in vars(cls).items()
        if name[0] != "_" and (inspect.isfunction(it) or isinstance(it, kinds))
    }


@cache
def targets() -> dict[str, Target]:
    """All targets, by their names."""
    found: dict[str, Target] = {}
    for it in [*CALLS, *functions(), *objects()]:
        name = _name(it)
        found.setdefault(name, Target(name)).valid.append(
            _of_method(it) if isinstance(it, Method) else _of_call(it)
        )
    return dict(sorted(found.items()))


def _name(it: Call | Method) -> str:
    """The name under which the front door shows it, whose group may be another one's."""
    if isinstance(it, Method):
        return f"{_name(it.made)}.{it.name}"
    group = it.function.__module__.split(".")[1]
    if group not in GROUPS:  # what all groups share: boolean_mask
        group = "attention"
    return f"{group}.{it.function.__qualname__}"


def _bound(function: Callable[..., Any], it: Any) -> dict[str, Any]:
    bound = inspect.signature(function).bind(*it.arguments, **it.options)
    bound.apply_defaults()
    return dict(bound.arguments)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: it.annotation for name, it in inspect.signature(function).parameters.items()}


def _with(function: Callable[..., Any], values: dict[str, Any]) -> Any:
    arguments, options = [], {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind == parameter.VAR_POSITIONAL:
            many = values[name]
            arguments += list(many) if isinstance(many, (list, tuple)) else [many]
        elif parameter.kind == parameter.KEYWORD_ONLY:
            options[name] = values[name]
        else:
            arguments.append(values[name])
    return function(*arguments, **options)


def _of_call(it: Call) -> Valid:
    function = it.function
    return Valid(_bound(function, it), _hints(function), lambda values: _with(function, values))


def _of_method(it: Method) -> Valid:
    cls: Any = it.made.function
    member = inspect.getattr_static(cls, it.name)
    values = {MADE + name: value for name, value in _bound(cls, it.made).items()}
    hints = {MADE + name: hint for name, hint in _hints(cls).items()}
    if not isinstance(member, property):
        own = Call(member, (None, *it.arguments), it.options)
        values |= dict(list(_bound(member, own).items())[1:])
        hints |= dict(list(_hints(member).items())[1:])

    def make(given: dict[str, Any]) -> Any:
        made = {n.removeprefix(MADE): v for n, v in given.items() if n.startswith(MADE)}
        instance = _with(cls, made)
        if it.before is not None:
            try:
                it.before(instance)
            except (ValueError, TypeError) as error:
                raise NotReadyError from error
        found = getattr(instance, it.name)
        if isinstance(member, property):
            return found
        return _with(found, {name: v for name, v in given.items() if not name.startswith(MADE)})

    return Valid(values, hints, make)
