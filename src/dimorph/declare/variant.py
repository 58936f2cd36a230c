"""Variants: a user's functor struct with its additional parameters."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dimorph.declare.dtypes import SCALARS, TENSORS
from dimorph.declare.names import IDENTIFIER, cpp_name_problem, declaring_place, placed, python_name_problem
from dimorph.errors import DeclarationError, counted

# A size of a tensor: a number, or a name. Operations with sizes of their own give the marks their meaning.
_SIZE = re.compile(r"\d+|\*?[A-Za-z_]\w*(?:\|1)?")


@dataclass(frozen=True)
class Param:
    """An additional parameter of a variant, made by `scalar` or `tensor`; a scalar's dtype may be empty: see there."""

    name: str
    dtype: str
    is_tensor: bool
    shape: str = ""

    @property
    def sizes(self) -> tuple[str, ...]:
        """The names or numbers of a tensor's sizes; none if they are not checked."""
        return tuple(part.strip() for part in self.shape.split(",") if part.strip())

    @property
    def optional(self) -> bool:
        """True for a tensor named `maybe_...`, which may be left out or None."""
        return self.is_tensor and self.name.startswith("maybe_")

    def field(self) -> str:
        """Return the C++ declaration of its field in the params struct."""
        return f"{self.cpp_type()} {self.name} = {{}};"

    def cpp_type(self) -> str:
        """Return the C++ type of its field."""
        return f"const {TENSORS[self.dtype]}*" if self.is_tensor else SCALARS[self.dtype]


@placed
def scalar(name: str, dtype: str | None = None) -> Param:
    """Declare a scalar parameter of a variant; its value is copied into the params struct.

    Args:
        name: the parameter's name.
        dtype: float32, float64, int32, int64 or bool. Default: float64 in a case whose dtype axes have that value, and
            float32 in any other, where 0.1 arrives as 0.10000000149.

    Raises:
        DeclarationError: the dtype cannot be that of a scalar.
    """
    if dtype is not None and dtype not in SCALARS:
        raise DeclarationError(f"scalar {name!r}: expected a dtype of {', '.join(SCALARS)}, got {dtype!r}")
    return Param(name, dtype or "", False)


@placed
def tensor(name: str, dtype: str, shape: str | Sequence[str | int] = "") -> Param:
    """Declare a row-major tensor parameter of a variant; the params struct gets a pointer to its elements.

    Each call checks the tensor: its dtype, its layout, its device and, where `shape` is given, its sizes.

    Args:
        name: the parameter's name; one that starts with `maybe_` may be None, which makes the pointer null.
        dtype: the element type, or the name of a dtype axis of the kernel, whose type it then has.
        shape: the tensor's sizes, as a list or separated by commas: numbers, names of integer axes of the kernel, and
            names that a tuple axis binds, e.g. "head_dim, 2"; for a kernel whose operation knows sizes of its own,
            such as attention, those names, e.g. "batch, heads". Empty: the sizes are not checked.

    Raises:
        DeclarationError: the dtype cannot be that of a tensor, or the shape cannot be read.
    """
    if not isinstance(dtype, str) or not (dtype in TENSORS or dtype.isidentifier()):
        raise DeclarationError(
            f"tensor {name!r}: expected a dtype of {', '.join(TENSORS)}, or the name of a dtype axis, got {dtype!r}"
        )
    parts = shape.split(",") if isinstance(shape, str) else [str(part) for part in shape]
    for part in parts if shape else ():
        if not _SIZE.fullmatch(part.strip()):
            raise DeclarationError(f"tensor {name!r}: shape: expected names and numbers, got {shape!r}")
    return Param(name, dtype, True, ", ".join(part.strip() for part in parts))


def declaring_file(depth: int) -> Path:
    """Return the path of the source file `depth` frames up the stack; `<interactive>` where there is none."""
    file = sys._getframe(depth).f_globals.get("__file__")
    return Path(file).resolve() if file else Path.cwd() / "<interactive>"


@dataclass(frozen=True)
class Variant:
    """A functor struct that plugs into a kernel's variant axis.

    Attributes:
        name: the name by which modules select it and messages show it.
        header: the header that defines the struct, relative to `root`.
        struct: the C++ struct (or template) that the axis's macro stands for; default: `name`.
        params: the additional parameters, in the order in which calls pass them; of a composition, those of its parts,
            where names that several parts use get the part's name: `bias` of Bias becomes `Bias_bias`.
        root: the directory of the header; default: that of the file that declares the variant.
        parts: the variants of a composition: `struct` is then a template over the params type and the parts' structs. A
            part of renamed parameters is given as `<struct>Part<ParamsT, its struct over a view, view>`; the view is a
            params type that has them under their own names.
        declared_at: the file and line that declares it, for messages.

    Raises:
        DeclarationError: a name is invalid or given twice, or the header is no header file.
    """

    name: str
    header: str
    struct: str = ""
    # Any sequence is taken, and kept as a tuple.
    params: Sequence[Param] = ()
    root: Path = field(default_factory=lambda: declaring_file(3).parent)
    parts: Sequence[Variant] = ()
    declared_at: str = field(default_factory=declaring_place, compare=False)

    @placed
    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if self.parts:
            object.__setattr__(self, "params", _composed(self.parts))
        object.__setattr__(self, "struct", self.struct or self.name)
        if not isinstance(self.params, Iterable) or not all(isinstance(param, Param) for param in self.params):
            raise DeclarationError(
                f"variant {self.name!r}: params: expected a tuple of dm.scalar(...) and dm.tensor(...), "
                f"e.g. (dm.scalar('scale'),) with its comma, got {self.params!r}"
            )
        object.__setattr__(self, "params", tuple(self.params))
        object.__setattr__(self, "root", Path(self.root).resolve())
        names = [param.name for param in self.params]
        if not isinstance(self.name, str) or not IDENTIFIER.match(self.name):
            raise DeclarationError(f"variant {self.name!r}: {self.name!r} is not an identifier")
        for name in names:
            problem = cpp_name_problem(name) or python_name_problem(name)
            if name == "params":
                problem = "'params' is the name of the struct that holds the parameters: choose another name"
            if problem:
                raise DeclarationError(f"variant {self.name!r}: parameter {problem}")
        if len(set(names)) != len(names):
            raise DeclarationError(f"variant {self.name!r}: two parameters have one name: {names}")
        if not isinstance(self.header, str) or not self.header.endswith((".h", ".hpp", ".cuh")):
            raise DeclarationError(f"variant {self.name!r}: header: expected a header file, got {self.header!r}")
        if (path := Path(self.header)).is_absolute():
            raise DeclarationError(
                f"variant {self.name!r}: header: expected a path relative to the file that declares the variant, "
                f"got {self.header!r}; write header={path.name!r}, root={str(path.parent)!r}"
            )

    def __repr__(self) -> str:
        return f"<dimorph.Variant {self.name}({parameter_names(self.params)})>"

    def renamed(self, index: int) -> list[tuple[Param, str]]:
        """Return the parameters of a part that have other names in the composition, with those names."""
        start = sum(len(part.params) for part in self.parts[:index])
        here = self.params[start : start + len(self.parts[index].params)]
        own = zip(self.parts[index].params, here, strict=True)
        return [(param, other.name) for param, other in own if param.name != other.name]

    def structs(self) -> tuple[Variant, ...]:
        """Return the variants whose headers are needed: itself and, recursively, its parts."""
        return (self, *(inner for part in self.parts for inner in part.structs()))

    def __call__(self, *args: Any, **named: Any) -> BoundVariant:
        """Bind values to the parameters, by position or by name; a `maybe_` tensor may be left out.

        Raises:
            TypeError: a parameter is missing, unknown or given twice.
        """
        names = [param.name for param in self.params]
        expected = f"{self.name}: expected parameters ({parameter_names(self.params)})"
        if len(args) > len(names):
            raise TypeError(f"{expected}, got {counted(len(args), 'value')}")
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


def _composed(parts: Sequence[Variant]) -> tuple[Param, ...]:
    """Return the parameters of all parts; those of one name get the name of their part, numbered if it stands twice."""
    names = [param.name for part in parts for param in part.params]
    made = []
    for index, part in enumerate(parts):
        earlier = sum(other.name == part.name for other in parts[:index])
        prefix = f"{part.name}{earlier + 1}" if earlier else part.name
        for param in part.params:
            maybe = "maybe_" * param.optional  # such a tensor may be left out, because of its name
            name = f"{maybe}{prefix}_{param.name.removeprefix(maybe)}" if names.count(param.name) > 1 else param.name
            made.append(replace(param, name=name))
    return tuple(made)


def parameter_names(params: Sequence[Param]) -> str:
    """Return the names of parameters, comma separated, as error messages of calls show them."""
    return ", ".join(param.name for param in params)
