"""Write type stubs (.pyi) for files that declare kernels, so that checkers know their axes and functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dimorph.declare.axis import Axis
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import instantiate
from dimorph.errors import DeclarationError
from dimorph.plan.unit import entry_unit
from dimorph.runtime.functions import Arguments, arguments, python_type
from dimorph.source.signature import Signature

# The base classes take any axis and any argument.
_QUIET = """# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false"""
_HEAD = '''
from collections.abc import Sequence as _Sequence
from concurrent.futures import Future as _Future
from pathlib import Path as _Path
from typing import Any as _Any, Literal as _Literal, Protocol as _Protocol, overload as _overload
import dimorph as _dimorph
from dimorph.aot import Report as _Report

class _Dtype(_Protocol):
    """A dtype of NumPy or torch."""

    @property
    def itemsize(self) -> int: ...
'''
_SETTINGS = "settings: _dimorph.Settings | None = None"
_LOAD = f"policy: str | None = None, {_SETTINGS}"
_SEVERAL = "_Sequence[str] | None = None"
_BUILD = f"out: _Path | str | None = None, /, *, targets: {_SEVERAL}, archs: {_SEVERAL}, {_SETTINGS}"


def write(kernels: Iterable[Declaration], out: Path | None) -> list[Path]:
    """Write a stub for each file that declares one of the kernels.

    Args:
        kernels: the kernels.
        out: the directory of the stubs; None: that of each file.

    Raises:
        DeclarationError: a file declares no kernel as a variable at its top level, or an entry cannot be read.
        OSError: a stub cannot be written.
    """
    files: dict[Path, list[Declaration]] = {}
    for kernel in kernels:
        files.setdefault(kernel.origin, []).append(kernel)
    written = []
    for origin, declared in files.items():
        path = (out or origin.parent) / f"{origin.stem}.pyi"
        text = stub(origin, declared)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        written.append(path)
    return written


def stub(origin: Path, kernels: Sequence[Declaration]) -> str:
    """Return the stub of a file: what it defines, with a class of its own for each kernel that is a variable in it."""
    by_line = {int(kernel.declared_at.rpartition(":")[2]): kernel for kernel in kernels}
    classes: list[str] = []
    body: list[str] = []
    future: list[str] = []
    for node in ast.parse(origin.read_text("utf-8")).body:
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        kernel = next((kernel for line, kernel in by_line.items() if line in lines), None)
        if kernel and (name := _variable(node)):
            classes += _kernel(name, kernel)
            body.append(f"{name}: _{name}")
        elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
            future.append(ast.unparse(node))
        elif isinstance(node, (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Try, *_DEFINITIONS)):
            body.append(ast.unparse(_Outline().visit(node)))
    if not classes:
        raise DeclarationError(
            f"{origin}: expected a kernel as a variable at its top level, e.g. name = dm.Kernel(...)"
        )
    made = f"# Made by `dimorph stub {origin.name}`. Make it again when declarations or entries change."
    return "\n".join([made, _QUIET, *future, _HEAD, *classes, *body, ""])


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class _Outline(ast.NodeTransformer):
    """Takes the bodies of functions out."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = [ast.Expr(ast.Constant(...))]
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        node.body = [ast.Expr(ast.Constant(...))]
        return node


def _variable(node: ast.stmt) -> str | None:
    """Return the name of the variable that a statement assigns to, if it is a single one."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else None


def _kernel(name: str, kernel: Declaration) -> list[str]:
    """Return the lines of the classes of a kernel: its functions, its module and itself."""
    exports = entry_unit(instantiate(kernel)).exports.values()
    variants = [value for axis in kernel.axes if axis.for_cases_only for value in axis.values]
    params = variants[0].params if len(variants) == 1 else None
    device = bool(kernel.device)
    lines = _module(f"_{name}_Module", exports, [arguments(one, params) for one in exports], device)
    axes = {axis: _axis(axis) for axis in kernel.axes}
    if any(axis.for_cases_only for axis in kernel.axes):
        # The arguments of another variant are not known here.
        lines += _module(f"_{name}_OtherModule", exports, [arguments(one, None) for one in exports], device)
        others = [f"{text}{' = ...' * (not axis.for_cases_only)}" for axis, text in axes.items()]
        plain = [f"{text} = ..." for axis, text in axes.items() if not axis.for_cases_only]
        loads = [("@_overload", plain, f"_{name}_Module"), ("@_overload", others, f"_{name}_OtherModule")]
    else:
        loads = [("", [f"{text} = ..." for text in axes.values()], f"_{name}_Module")]
    every = ", ".join(f"{text} = ..." for text in axes.values())
    lines.append(f"class _{name}(_dimorph.Kernel):")
    for decorator, given, result in loads:
        lines += [f"    {decorator}"] if decorator else []
        lines.append(f"    def load(self, *, {', '.join([_LOAD, *given])}) -> {result}: ...")
    for decorator, given, result in loads:
        lines += [f"    {decorator}"] if decorator else []
        taken = f"self, *, {', '.join([_LOAD, *given])}"
        lines.append(f"    def load_in_background({taken}) -> _Future[{result}]: ...")
    star = ", *, " if every else ""
    lines.append(f"    def instantiations(self{star}{every}) -> _dimorph.InstantiationSet: ...")
    lines.append(f"    def build(self, {', '.join([_BUILD, *([every] if every else [])])}) -> _Report: ...")
    return [*lines, ""]


def _module(name: str, exports: Iterable[Signature], given: Iterable[Arguments], device: bool) -> list[str]:
    functions, attributes = [], []
    for signature, known in zip(exports, given, strict=True):
        typed = [
            f"{one.name}: {_public(one.type)}" + (f" = {one.default}" if one.default is not None else "")
            for one in known.named
        ]
        if known.rest:
            typed.append(f"*{known.rest}: _Any")
        if device:
            typed += [*([] if known.rest else ["*"]), "stream: _Any = None"]
        if known.rest:
            typed.append("**named: _Any")
        own = any(one.name == "self" for one in known.named)
        result = _public(python_type(signature.result))
        functions += [
            f"class {name}_{signature.name}(_dimorph.Function, _Protocol):",
            f"    def __call__({', '.join(['self_', '/', *typed] if own else ['self', *typed])}) -> {result}:",
            *(f"        {line}".rstrip() for line in [*_docstring(signature.doc), "..."]),
        ]
        attributes.append(f"    {signature.name}: {name}_{signature.name}")
    return [*functions, f"class {name}(_dimorph.Module):", *(attributes or ["    ..."])]


def _docstring(doc: str) -> list[str]:
    return [repr(doc)] if doc else []


def _public(name: str) -> str:
    return re.sub(r"\b(Any|Sequence)\b", r"_\1", re.sub(r"\bArray\b", "_dimorph.Array", name))


def _axis(axis: Axis) -> str:
    """Return an axis as an argument with its type: what checkers can know of its values."""
    one = _value(axis)
    return f"{axis.name}: {one}" + ("" if axis.choose else f" | _Sequence[{one}]")


def _value(axis: Axis) -> str:
    open_ = axis.accepts is not None or not axis.values
    literals = f"_Literal[{', '.join(map(repr, axis.values))}]"
    if axis.kind == "int":
        return "int" if open_ else literals
    if axis.kind == "dtype":
        return f"{'str' if open_ else literals} | type[_Any] | _Dtype"
    if axis.kind == "enum":
        return "str" if open_ else literals
    if axis.kind == "tuple":
        return f"tuple[{', '.join(['int'] * len(axis.binds))}]"
    if axis.kind == "variant":
        return f"_Literal[{', '.join(repr(axis.text(value)) for value in axis.values)}] | _dimorph.Variant"
    return "bool" if axis.kind == "flag" else "object"
