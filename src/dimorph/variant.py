"""Variants: a user's functor struct with its additional parameters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dimorph.errors import DeclarationError

# Scalar types a variant may take -> C++.
SCALARS = {"float32": "float", "float64": "double", "int32": "int32_t", "int64": "int64_t", "bool": "bool"}


@dataclass(frozen=True)
class Param:
    """An additional parameter of a variant, made by `scalar` or `tensor`."""

    name: str
    dtype: str
    is_tensor: bool

    @property
    def optional(self) -> bool:
        """Whether it may be left out or None: the tensors named `maybe_...`."""
        return self.is_tensor and self.name.startswith("maybe_")


def scalar(name: str, dtype: str = "float32") -> Param:
    """A number, copied into the params struct."""
    if dtype not in SCALARS:
        raise DeclarationError(f"scalar {name!r}: expected a dtype of {', '.join(SCALARS)}, got {dtype!r}")
    return Param(name, dtype, False)


def tensor(name: str, dtype: str) -> Param:
    """A row-major tensor; the params struct gets a pointer to its elements, null for a `maybe_` that is None."""
    return Param(name, dtype, True)


def declaring_file(depth: int) -> Path:
    """The file whose code called the caller's caller (`depth` frames up)."""
    file = sys._getframe(depth).f_globals.get("__file__")
    return Path(file).resolve() if file else Path.cwd() / "<interactive>"


@dataclass(frozen=True)
class Variant:
    """A functor struct that plugs into a kernel's variant slot.

    Attributes:
        name: what a dispatching module and messages call it.
        header: the header that defines the struct, relative to `root`.
        struct: the C++ struct (template) the slot's macro names; default: `name`.
        params: the additional parameters, in the order in which calls pass them.
        root: the directory of the header; default: that of the file that declares the variant.
    """

    name: str
    header: str
    struct: str = ""
    params: tuple[Param, ...] = ()
    root: Path = field(default_factory=lambda: declaring_file(3).parent, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "struct", self.struct or self.name)
        object.__setattr__(self, "params", tuple(self.params))
        object.__setattr__(self, "root", Path(self.root).resolve())
        names = [param.name for param in self.params]
        for name in (self.name, *names):
            if not name.isidentifier():
                raise DeclarationError(f"variant {self.name!r}: {name!r} is not an identifier")
        if len(set(names)) != len(names):
            raise DeclarationError(f"variant {self.name!r}: two parameters have one name: {names}")
        if not self.header.endswith((".h", ".hpp", ".cuh")):
            raise DeclarationError(f"variant {self.name!r}: expected a header file, got {self.header!r}")


def parameter_names(params: Sequence[Param]) -> str:
    """The names, comma separated, as C++ messages carry them."""
    return ", ".join(param.name for param in params)
