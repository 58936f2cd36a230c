"""Pickling by reference: a kernel is sent as the module and variable that hold it, because predicates have no value."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


def reference(value: object, described: str, declared_in: Path) -> tuple[Any, tuple[str, str, str]]:
    """Return what `__reduce__` returns for a value that a variable of a module holds.

    Args:
        value: the value.
        described: the value in words, for messages.
        declared_in: the file that declares it, whose module is preferred to others that import the variable.

    Raises:
        TypeError: no variable of an importable module holds the value.
    """
    held = holder(value, declared_in)
    if held is None:
        raise TypeError(
            f"{described} cannot be pickled: no variable of a module that can be imported holds it; "
            "declare it at the top level of a module"
        )
    module, variable = held
    return received, (described, module.__name__, variable)


def holder(value: object, declared_in: Path) -> tuple[ModuleType, str] | None:
    """Return the module and the variable that hold a value; None if no imported module does.

    Args:
        value: the value.
        declared_in: the file that declares it, whose module is preferred to others that import the variable.
    """
    held = [(module, variable) for module in _importable() for variable in _variables(module, value)]
    return next((one for one in held if file_of(one[0]) == declared_in), held[0]) if held else None


def received(described: str, module: str, variable: str) -> Any:
    """Return the value of a variable of a module, in the process that a pickle was sent to.

    Raises:
        TypeError: this process has no such variable.
    """
    try:
        return getattr(import_module(module), variable)
    except (ImportError, AttributeError) as error:
        raise TypeError(
            f"{described} cannot be unpickled: it was sent as {module}.{variable}, which this process has not; "
            "declare it in a module that both processes can import"
        ) from error


def _importable() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        # A program's main module is imported by the processes that it spawns, if it is a file.
        if isinstance(module, ModuleType) and module.__name__ == name and (name != "__main__" or file_of(module)):
            yield module


def _variables(module: ModuleType, value: object) -> list[str]:
    return [name for name, held in list(vars(module).items()) if held is value]


def file_of(module: ModuleType) -> Path | None:
    """Return the file of a module; None if it has none."""
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None
