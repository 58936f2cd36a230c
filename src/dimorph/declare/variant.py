"""Variants: a user's functor struct with its additional parameters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dimorph.declare.dtypes import SCALARS, TENSORS
from dimorph.errors import DeclarationError


@dataclass(frozen=True)
class Param:
    """An additional parameter of a variant, made by `scalar` or `tensor`."""

    name: str
    dtype: str
    is_tensor: bool
    shape: str = ""

    @property
    def optional(self) -> bool:
        """Whether it may be left out or None: the tensors named `maybe_...`."""
        return self.is_tensor and self.name.startswith("maybe_")


def scalar(name: str, dtype: str = "float32") -> Param:
    """A number, copied into the params struct."""
    if dtype not in SCALARS:
        raise DeclarationError(f"scalar {name!r}: expected a dtype of {', '.join(SCALARS)}, got {dtype!r}")
    return Param(name, dtype, False)


def tensor(name: str, dtype: str, shape: str = "") -> Param:
    """A row-major tensor; the params struct gets a pointer to its elements, null for a `maybe_` that is None.

    Args:
        shape: its sizes, by names that the operation knows and checks, e.g. "batch, heads"; none: they are the
            caller's promise.
    """
    if dtype not in TENSORS:
        raise DeclarationError(f"tensor {name!r}: expected a dtype of {', '.join(TENSORS)}, got {dtype!r}")
    return Param(name, dtype, True, shape)


def declaring_file(depth: int) -> Path:
    """The file whose code called the caller's caller (`depth` frames up)."""
    file = sys._getframe(depth).f_globals.get("__file__")
    return Path(file).resolve() if file else Path.cwd() / "<interactive>"


@dataclass(frozen=True)
class Variant:
    """A functor struct that plugs into a kernel's variant axis.

    Attributes:
        name: what a dispatching module and messages call it.
        header: the header that defines the struct, relative to `root`.
        struct: the C++ struct (template) that the axis's macro names; default: `name`.
        params: the additional parameters, in the order in which calls pass them; for a composition, its parts'.
        root: the directory of the header; default: that of the file that declares the variant.
        parts: makes it a composition: `struct` is then a template over the params type and the parts' structs.
        sized: the position and the shape of each parameter that has one.
    """

    name: str
    header: str
    struct: str = ""
    params: tuple[Param, ...] = ()
    root: Path = field(default_factory=lambda: declaring_file(3).parent, repr=False)
    parts: tuple[Variant, ...] = ()
    sized: tuple[tuple[int, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if self.parts:
            object.__setattr__(self, "params", tuple(param for part in self.parts for param in part.params))
        object.__setattr__(self, "struct", self.struct or self.name)
        object.__setattr__(self, "params", tuple(self.params))
        object.__setattr__(self, "sized", tuple((i, param.shape) for i, param in enumerate(self.params) if param.shape))
        object.__setattr__(self, "root", Path(self.root).resolve())
        names = [param.name for param in self.params]
        for name in (self.name, *names):
            if not name.isidentifier():
                raise DeclarationError(f"variant {self.name!r}: {name!r} is not an identifier")
        if len(set(names)) != len(names):
            raise DeclarationError(f"variant {self.name!r}: two parameters have one name: {names}")
        if not self.header.endswith((".h", ".hpp", ".cuh")):
            raise DeclarationError(f"variant {self.name!r}: expected a header file, got {self.header!r}")

    def structs(self) -> tuple[Variant, ...]:
        """Every variant whose header is needed: itself and its parts."""
        return (self, *(inner for part in self.parts for inner in part.structs()))

    def __call__(self, *args: Any, **named: Any) -> BoundVariant:
        """The variant with values for its parameters, by position or by name; a `maybe_` tensor may be left out.

        Raises:
            TypeError: a parameter is missing, unknown or given twice.
        """
        names = [param.name for param in self.params]
        expected = f"{self.name}: expected parameters ({parameter_names(self.params)})"
        if len(args) > len(names):
            raise TypeError(f"{expected}, got {len(args)} values")
        values = dict(zip(names, args, strict=False))
        for name, value in named.items():
            if name in values or name not in names:
                raise TypeError(f"{expected}, got {name!r}" + (" twice" if name in values else ""))
            values[name] = value
        if lacking := [p.name for p in self.params if p.name not in values and not p.optional]:
            raise TypeError(f"{expected}, got none for {', '.join(lacking)}")
        return BoundVariant(self, tuple(values.get(name) for name in names))


@dataclass(frozen=True)
class BoundVariant:
    """A variant and the values of its parameters, in the order in which calls pass them."""

    variant: Variant
    args: tuple[Any, ...] = ()


def parameter_names(params: Sequence[Param]) -> str:
    """The names, comma separated, as C++ messages carry them."""
    return ", ".join(param.name for param in params)
