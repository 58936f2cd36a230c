"""The declaration of a kernel, from which headers, keys, builds and manifests are derived."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from dimorph.declare import sent
from dimorph.declare.axis import Axis, Value
from dimorph.declare.dependency import Dependency
from dimorph.declare.dtypes import TENSORS
from dimorph.declare.names import IDENTIFIER, cpp_name_problem, declaring_place, placed
from dimorph.declare.variant import Variant, declaring_file
from dimorph.errors import DeclarationError

# The other arguments of `Kernel.load`, `Kernel.build` and `Kernel.instantiations`: no axis may have such a name.
RESERVED = ("self", "policy", "settings", "targets", "archs")

_HEADER = re.compile(r"\w+_config\.h\Z", re.ASCII)


@dataclass(frozen=True, eq=False)
class Declaration:
    """The declaration of a kernel: immutable and printable. Files are first read when the kernel is loaded or built.

    Attributes:
        name: a C++ identifier.
        entry: the source that validates arguments and dispatches, relative to `root`; default: `<name>.cc`.
        case: the sources compiled once for each specialization, relative to `root`; they make one translation unit.
            Default: `<name>_case.cc`. Empty for an entry that does all the work, which has no axes.
        device: CUDA sources of the GPU kernels that the case launches, relative to `root`; they also make one
            translation unit.
        archs: the GPU architectures that the device sources support, e.g. `("sm_80", "sm_90a")`; a build ahead of time
            compiles for these by default. `sm_80` includes every later GPU, `sm_90a` is compute capability 9.0 alone.
            Where the architectures depend on the specialization: a pure function of its values (axis name -> value).
        axes: the compile-time parameters. Combinations of their values are numbered in this order, the last axis
            fastest.
        functions: the functions that the cases define and the entry calls; default: the kernel's name.
        config: the file name of the config header, as the sources include it; default: `<name>_config.h`. Kernels that
            share an entry, such as one for the CPU and one for the GPU, give it the same name.
        where: predicate on combinations (axis name -> value): True for those that exist; None: all exist.
        only: the combinations that exist, as an explicit list of axis name -> value.
        covers: pure function of a specialization's values (axis name -> value): the specializations whose case computes
            the same from the same arguments, each as axis name -> value of the axes that differ, the best first. One
            that is built serves while the specialization's own case is compiled, if `DIMORPH_ON_MISS` is `serve`; so
            does the own case for a lower target level, the only one where the function returns an empty list.
        include_dirs: directories searched for headers after `root`, relative to it.
        dependencies: libraries of others that the sources include or link, found when the kernel is built; see
            `pkg_config`, `cmake_package`, `python_package` and `library`.
        root: the directory that the paths are relative to; default: that of `origin`.
        origin: the file that declares the kernel.
        declared_at: that file and the line, for messages.

    Raises:
        DeclarationError: a field is invalid; the message names the kernel and the field.
    """

    name: str
    entry: str = ""
    # Any sequence is taken, and kept as a tuple.
    case: Sequence[str] = None  # type: ignore[assignment]  # set by __post_init__
    device: Sequence[str] = ()
    archs: Sequence[str] | Callable[[Mapping[str, Value]], Sequence[str]] = ()
    axes: Sequence[Axis] = ()
    functions: Sequence[str] = ()
    config: str = ""
    where: Callable[[Mapping[str, Value]], bool] | None = None
    only: Sequence[Mapping[str, Any]] | None = None
    covers: Callable[[Mapping[str, Value]], Sequence[Mapping[str, Any]]] | None = None
    include_dirs: Sequence[str] = ()
    dependencies: Sequence[Dependency] = ()
    root: Path = None  # type: ignore[assignment]  # set by __post_init__
    origin: Path = field(default_factory=lambda: declaring_file(3))
    declared_at: str = field(default_factory=declaring_place)

    @placed
    def __post_init__(self) -> None:
        object.__setattr__(self, "entry", self.entry or f"{self.name}.cc")
        object.__setattr__(self, "case", (f"{self.name}_case.cc",) if self.case is None else self.case)
        for name in ("case", "device", "archs", "axes", "functions", "include_dirs", "dependencies", "only"):
            given = getattr(self, name)
            if (given is None and name == "only") or (callable(given) and name == "archs"):
                continue
            if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
                cure = "" if isinstance(given, Mapping) and name != "only" else f"; write [{given!r}]"
                raise self._refused(f"{name}: expected a list, got {given!r}{cure if name != 'axes' else _axis(given)}")
            object.__setattr__(self, name, tuple(given))
        if others := [one for one in self.axes if not isinstance(one, Axis)]:
            raise self._refused(f"axes: expected axes, got {others[0]!r}{_axis(others[0])}")
        object.__setattr__(self, "functions", self.functions or ((self.name,) if self.case else ()))
        object.__setattr__(self, "root", Path(self.root or self.origin.parent).resolve())
        self._check_sources()
        self._check_names()
        self._check_dependencies()
        for axis in self.axes:
            self.check_values(axis, axis.values)
        if self.only is not None:
            object.__setattr__(self, "only", tuple(self._checked_row(row) for row in self.only))

    def __repr__(self) -> str:
        axes = ", ".join(f"{a.name}={a.shown(self.listed_values(a)) if a.values else 'chosen'}" for a in self.axes)
        return f"<dimorph.Kernel {self.name}({axes}) of {self.entry}, {self._count()}>"

    def _count(self) -> str:
        if self.only is not None:
            count, most = len(self.only), ""
        else:
            # Where a function says which combinations exist, to count them may take long.
            count, most = prod(len(a.values) for a in self.axes if not a.choose), "up to " * (self.where is not None)
        return f"{most}{count} combination{'s' * (count != 1)}"

    def __reduce__(self) -> tuple[Any, tuple[str, str, str]]:
        return sent.reference(self, f"kernel {self.name}", self.origin)

    def __copy__(self) -> Declaration:
        return self  # it is immutable

    def __deepcopy__(self, memo: object) -> Declaration:
        return self

    def position(self, axis_name: str) -> int:
        """Return the position of an axis in `axes`, from 0.

        Raises:
            DeclarationError: there is no such axis.
        """
        for position, axis in enumerate(self.axes):
            if axis.name == axis_name:
                return position
        names = ", ".join(axis.name for axis in self.axes) or "none"
        raise DeclarationError(f"kernel {self.name}: no axis is called {axis_name!r}; there are: {names}")

    def listed_values(self, axis: Axis) -> tuple[Value, ...]:
        """Return the declared values of an axis; where `only` is given, those that its combinations use."""
        if self.only is None:
            return axis.values
        rows = [row[axis.name] for row in self.only if axis.name in row]
        return tuple(dict.fromkeys([*(v for v in axis.values if v in rows), *rows])) or axis.values

    def check_values(self, axis: Axis, values: Sequence[Value]) -> None:
        """Refuse variants whose tensors have a dtype or a size that the kernel does not know.

        Raises:
            DeclarationError: a variant is refused; the message names its tensor and what there is.
        """
        dtypes = {a.name for a in self.axes if a.kind == "dtype"}
        own: tuple[str, ...] = getattr(axis, "own_sizes", ())
        sizes = own or tuple(name for a in self.axes for name in a.size_names)
        for variant in values:
            for param in variant.params if isinstance(variant, Variant) else ():
                place = f"variant {variant.name}: tensor {param.name!r}"
                if param.is_tensor and param.dtype not in dtypes | TENSORS.keys():
                    raise self._refused(
                        f"{place}: expected a dtype, or the name of a dtype axis "
                        f"({', '.join(sorted(dtypes)) or 'there is none'}), got {param.dtype!r}"
                    )
                for size in param.sizes:
                    if not size.isdigit() and (size.removesuffix("|1") if own else size) not in sizes:
                        given = "integer axes are sizes, and names that the case checks itself are given in"
                        more = "" if own else f"; {given} variant_axis(..., sizes=[{size!r}])"
                        raise self._refused(
                            f"{place}: shape: expected numbers and names of sizes "
                            f"({', '.join(sizes) or 'there is none'}), got {size!r}{more}"
                        )

    def _check_sources(self) -> None:
        named = {name: getattr(self, name) for name in ("case", "device", "include_dirs")}
        for field_name, path in [("entry", self.entry), *((name, path) for name in named for path in named[name])]:
            if not isinstance(path, str):
                raise self._refused(f"{field_name}: expected a str, relative to `root`, got {path!r}")
            if Path(path).is_absolute():
                raise self._refused(f"{path}: expected a path relative to `root`")
        if self.entry in self.case:
            raise self._refused(
                f"entry: {self.entry!r} is one of its case sources; expected the source that exports functions"
            )
        for what, given in (("axes", self.axes), ("device sources", self.device)):
            if given and not self.case:
                raise self._refused(f"it has {what} but no case sources to compile for them")
        if self.device and not self.archs:
            raise self._refused("it has device sources but no `archs` to compile them for")

    def _check_names(self) -> None:
        if not isinstance(self.name, str) or not IDENTIFIER.match(self.name):
            raise self._refused(f"{self.name!r} is not a C++ identifier: use letters, digits and _")
        for name in self.functions:
            if problem := cpp_name_problem(name):
                raise self._refused(f"functions: {problem}")
        if self.config and not (isinstance(self.config, str) and _HEADER.match(self.config)):
            raise self._refused(f'config: expected a file name that ends with "_config.h", got {self.config!r}')
        names = [axis.name for axis in self.axes]
        binds = [bind for axis in self.axes for bind in axis.binds]
        for what, given in (("axes", names), ("bound names", binds)):
            if twice := [n for n in given if given.count(n) > 1]:
                raise self._refused(f"two {what} are called {twice[0]!r}")
        if taken := [name for name in names if name in RESERVED]:
            raise self._refused(
                f"no axis can be called {taken[0]!r}, which is an argument of load or build ({', '.join(RESERVED)})"
            )
        if sum(axis.for_cases_only for axis in self.axes) > 1:
            raise self._refused("it has two variant axes; one is possible")

    def _check_dependencies(self) -> None:
        names = [one.name if isinstance(one, Dependency) else one for one in self.dependencies]
        for one in self.dependencies:
            if not isinstance(one, Dependency):
                raise self._refused(f"dependencies: expected a result of pkg_config or the like, got {one!r}")
            if names.count(one.name) > 1:
                raise self._refused(f"dependencies: two are called {one.name!r}")
            for path in one.include_dirs:
                if one.kind == "path" and self.root in (Path(path).resolve(), *Path(path).resolve().parents):
                    raise self._refused(
                        f"dependencies: {one.name}: {path} is inside of the project ({self.root}), whose headers are "
                        "part of every key: name it in include_dirs"
                    )

    def _checked_row(self, row: Mapping[str, Any]) -> dict[str, Value]:
        for name in row:
            self.position(name)
        for axis in self.axes:
            if axis.name not in row and not axis.choose and len(axis.values) != 1:
                raise DeclarationError(f"kernel {self.name}: a row of `only` gives no value for axis {axis.name}")
        return {axis.name: axis.value(row[axis.name]) for axis in self.axes if axis.name in row}

    def _refused(self, problem: str) -> DeclarationError:
        return DeclarationError(f"kernel {self.name!r}: {problem}")


def _axis(given: object) -> str:
    """Return how to write what was given in place of an axis, as the end of a message."""
    if isinstance(given, Axis):
        return f"; write [{given!r}]"
    name = next(iter(given), given) if isinstance(given, Mapping) else given
    return f"; write [dm.int_axis({name!r}, {name.upper()!r}, [...])], or another kind" if isinstance(name, str) else ""


# A wrong call of the constructor is told by this name, which is the one that users know.
Declaration.__init__.__qualname__ = "Kernel"
