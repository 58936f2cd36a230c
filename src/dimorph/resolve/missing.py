"""The one wording of MissingSpecialization, and the command that mends it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from dimorph.declare.declaration import Declaration
from dimorph.errors import MissingSpecialization
from dimorph.plan.unit import Unit
from dimorph.store.layers import PACKAGED
from dimorph.toolchain.archs import Arch


def missing_unit(unit: Unit, reason: str, passed: Iterable[str]) -> MissingSpecialization:
    """Describe a unit that no layer holds and that may not be compiled.

    Args:
        reason: why it is not compiled.
        passed: a line for each layer that was searched.
    """
    what = f"{unit.label} for {unit.archs[0].name}" if unit.archs else unit.label
    declared = {axis.name: [axis.text(value) for value in axis.values] for axis in unit.kernel.axes}
    return _missing(unit.kernel, what, unit.values, reason, passed, declared, unit.archs[:1])


def missing_values(
    kernel: Declaration, values: Mapping[str, str], reason: str, there: Mapping[str, Sequence[str]]
) -> MissingSpecialization:
    """Describe values of a call that a module lacks.

    Args:
        values: axis name -> the value that the call has.
        reason: why it is not there.
        there: axis name -> the values that the module has.
    """
    asked = ", ".join(f"{name}={text}" for name, text in values.items())
    held = "; ".join(f"{name}: {', '.join(texts)}" for name, texts in there.items() if texts)
    return _missing(kernel, f"{kernel.name}: {asked}", values, reason, [f"there is: {held}"], there, ())


def build_command(kernel: Declaration, values: Mapping[str, str], archs: Sequence[Arch] = ()) -> str:
    """Return the command that builds ahead of time everything that a call with these values needs.

    Args:
        values: axis name -> value.
        archs: the architectures to build device code for; none: those that the kernel declares.
    """
    axes = [f"{name}={text}" for name, text in values.items()]
    axes += [word for arch in archs for word in ("--arch", arch.name)]
    what = f"{kernel.origin}:{kernel.name}"
    return shlex.join(["dimorph", "build", what, *axes, "--out", str(kernel.root / PACKAGED)])


def _missing(
    kernel: Declaration,
    what: str,
    values: Mapping[str, str],
    reason: str,
    lines: Iterable[str],
    available: Mapping[str, Sequence[str]],
    archs: Sequence[Arch],
) -> MissingSpecialization:
    command = build_command(kernel, values, archs)
    text = "\n  ".join([f"{what} is not there: {reason}", *lines, f"build it: {command}"])
    return MissingSpecialization(text, kernel=kernel.name, missing=values, available=available, command=command)
