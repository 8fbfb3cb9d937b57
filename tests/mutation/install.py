"""A mutant in place of the code, in a process that has imported everything.

Functions keep their identity and get the mutant's code, so whoever imported one by name has the
mutant too. Leaves out: a way back, since each mutant has a process of its own.
"""

import importlib
import inspect
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from tests.mutation.sites import Mutant


def module_name(file: str) -> str:
    """'llmref/rl/kl/__init__.py' -> 'llmref.rl.kl'."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def install(mutant: Mutant) -> None:
    """Let the mutant's functions and constants stand where the original ones do."""
    module = importlib.import_module(module_name(mutant.file))
    mutated = ModuleType(module.__name__)
    vars(mutated).update({"__file__": module.__file__, "__package__": module.__package__})
    exec(compile(mutant.tree, mutant.file, "exec"), vars(mutated))
    twins = dict(functions(mutated))
    for name, function in functions(module):
        if name in twins:
            function.__code__ = twins[name].__code__
            function.__defaults__ = twins[name].__defaults__
            function.__kwdefaults__ = twins[name].__kwdefaults__
    if not mutant.function:
        _replace_constants(module, mutated)
    for value in list(vars(module).values()):
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """The functions and methods that a module defines, by their qualified names."""
    for name, value in vars(module).items():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            for inner, member in vars(value).items():
                if (function := _plain(member)) is not None:
                    yield f"{name}.{inner}", function
        elif (function := _plain(value)) is not None and value.__module__ == module.__name__:
            yield name, function


def _plain(value: Any) -> FunctionType | None:
    """The function within a property, a static method or a decorator."""
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    value = inspect.unwrap(value) if callable(value) else value
    return value if isinstance(value, FunctionType) else None


def _replace_constants(module: ModuleType, mutated: ModuleType) -> None:
    for name, new in vars(mutated).items():
        old = vars(module).get(name)
        if name.startswith("__") or callable(new) or isinstance(new, ModuleType):
            continue
        for other in [it for key, it in sys.modules.items() if key.startswith("llmref")]:
            if vars(other).get(name) is old:
                setattr(other, name, new)
