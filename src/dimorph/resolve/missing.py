"""The message of MissingSpecialization, and the command that builds the missing artifacts."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType

from dimorph.declare.axis import Axis
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import instantiate
from dimorph.declare.variant import Variant
from dimorph.errors import DeclarationError, MissingSpecialization
from dimorph.plan.unit import Unit
from dimorph.store.layers import PACKAGED
from dimorph.toolchain.archs import Arch


def missing_unit(unit: Unit, reason: str, passed: Sequence[str], *, no_compiler: bool = False) -> MissingSpecialization:
    """Return the error for a unit that no layer holds and that may not be compiled.

    Args:
        unit: the missing unit.
        reason: why it is not compiled.
        passed: for each layer that was searched, a line with the reason why it did not serve.
        no_compiler: True if the reason is that no compiler serves, or that a dependency is missing.
    """
    what = f"{unit.label} for {unit.archs[0].name}" if unit.archs else unit.label
    declared = {axis.name: [axis.text(value) for value in axis.values] for axis in unit.kernel.axes}
    first = ""
    if any(": refused: " in line or ": cannot be read: " in line for line in passed):
        first = "mend the place that was refused or cannot be read; if it lacks the specialization, "
    if no_compiler:
        # The reason may be a missing library as well.
        first += "once that is mended, " if unit.kernel.dependencies else "once there is a compiler, "
    return _missing(unit.kernel, what, unit.values, {}, unit.known, reason, passed, declared, unit.archs[:1], first)


def advice(unit: Unit) -> str:
    """Return how to have a unit built ahead: the command, or why there is none and what else serves."""
    return _advice(unit.kernel, unit.values, unit.known, unit.archs[:1])[1]


def missing_values(
    kernel: Declaration,
    values: Mapping[str, str],
    beside: Mapping[str, str],
    known: Mapping[str, Variant],
    reason: str,
    there: Mapping[str, Sequence[str]],
) -> MissingSpecialization:
    """Return the error for values of a call that a module lacks.

    Args:
        kernel: the kernel of the module.
        values: axis name -> the value of the call.
        beside: axis name -> values, separated by commas, of the other axes that the module was not loaded with as they
            are declared; the command needs them.
        known: name -> variant, for the variants of the module.
        reason: why the module lacks it and does not add it.
        there: axis name -> the values of the module.
    """
    asked = ", ".join(f"{name}={text}" for name, text in values.items())
    held = "; ".join(f"{name}: {', '.join(texts)}" for name, texts in there.items() if texts)
    what = f"{kernel.name}: {asked}"
    return _missing(kernel, what, values, beside, known, reason, [f"available: {held}"], there, ())


def build_command(kernel: Declaration, values: Mapping[str, str], archs: Sequence[Arch] = ()) -> str:
    """Return the shell command that builds ahead of time everything that a call with these values needs.

    Args:
        kernel: the kernel to build.
        values: axis name -> value, as a command line names it.
        archs: the architectures to build device code for; empty: those that the kernel declares.
    """
    axes = [f"{name}={text}" for name, text in values.items()]
    axes += [word for arch in archs for word in ("--arch", arch.name)]
    what = f"{kernel.origin}:{kernel.name}"
    return shlex.join(["dimorph", "build", what, *axes, "--out", str(kernel.root / PACKAGED)])


def _missing(
    kernel: Declaration,
    what: str,
    values: Mapping[str, str],
    beside: Mapping[str, str],
    known: Mapping[str, Variant],
    reason: str,
    lines: Iterable[str],
    available: Mapping[str, Sequence[str]],
    archs: Sequence[Arch],
    first: str = "",
) -> MissingSpecialization:
    command, cure = _advice(kernel, {**beside, **values}, known, archs)
    text = "\n  ".join([f"{what} is not there: {reason}", *lines, f"{first}{cure}"])
    return MissingSpecialization(text, kernel=kernel.name, missing=values, available=available, command=command)


def _advice(
    kernel: Declaration, values: Mapping[str, str], known: Mapping[str, Variant], archs: Sequence[Arch]
) -> tuple[str | None, str]:
    """Return the command that builds a kernel for some values, and what to do as a text; None if no command can."""
    from dimorph.declare.reference import variant_reference  # here, because only an error needs it

    references = {
        name: variant_reference(variant)
        for name, variant in known.items()
        if any(name in texts.split(",") for texts in values.values())
        and not any(variant in axis.values for axis in kernel.axes if axis.for_cases_only)
    }
    if obstacle := _obstacle(kernel, values, {name: known[name] for name in references}):
        return None, obstacle
    if lost := [f"variant {name}: {one.why}" for name, one in references.items() if not one.text]:
        return None, f"no command builds it ahead: {lost[0]}; or call build() of the kernel with the variant itself"
    named = {
        axis.name: ",".join(references[one].text if one in references else one for one in texts.split(","))
        if axis.for_cases_only
        else texts
        for axis in kernel.axes
        if (texts := values.get(axis.name)) is not None
    }
    command = build_command(kernel, named, archs)
    return command, f"build it: {command}"


def _obstacle(kernel: Declaration, values: Mapping[str, str], known: Mapping[str, Variant]) -> str:
    """Return why no command line can build a kernel for some values, and what else serves; empty if one can.

    Args:
        kernel: the kernel.
        values: axis name -> value, or values separated by commas.
        known: name -> variant, for variants that the kernel does not declare.
    """
    if not kernel.origin.is_file():
        return (
            f"no command builds kernel {kernel.name} ahead, because no file declares it ({kernel.origin}): move its "
            "declaration into a module"
        )
    modules = list(_modules(kernel))
    if modules and not any(_binds(module, kernel) for module in modules):
        return (
            f"no command builds kernel {kernel.name} ahead, because no variable of {kernel.origin} holds it: bind it "
            "at the module level, or call its build()"
        )
    given: dict[str, object] = {name: text.split(",") if "," in text else text for name, text in values.items()}
    for axis in kernel.axes:
        if axis.for_cases_only and axis.name in values:
            given[axis.name] = [known.get(text, text) for text in values[axis.name].split(",")]
    if unknown := [axis for axis in kernel.axes if axis.name in given and not _declares(axis, given[axis.name])]:
        return _declare(unknown[0], values[unknown[0].name])
    try:
        instantiate(kernel, given)
    except DeclarationError as error:
        return f"no command builds it ahead: {error}"
    return ""


def _declares(axis: Axis, given: object) -> bool:
    try:
        axis.several(given)
    except DeclarationError:
        return False
    return True


def _declare(axis: Axis, text: str) -> str:
    """Return what to do about a value that a command line cannot name."""
    if axis.for_cases_only:
        return (
            f"no command builds it ahead, because axis {axis.name} declares no {text}: add the variant to its values, "
            "or call build() of the kernel with the variant itself"
        )
    if axis.normal(text) is None:
        return f"pass a value of axis {axis.name}: {axis.expected}"
    how = "let its `accepts` admit it" if axis.accepts else "give it an `accepts` that admits it"
    return f"add {text} to the values of axis {axis.name}" + (f", or {how}" if axis.kind in ("int", "tuple") else "")


def _modules(kernel: Declaration) -> Iterator[ModuleType]:
    """Yield the imported modules of the file that declares a kernel."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and os.path.realpath(file) == str(kernel.origin):
            yield module


def _binds(module: ModuleType, kernel: Declaration) -> bool:
    return any(isinstance(one, Declaration) and one.name == kernel.name for one in vars(module).values())
