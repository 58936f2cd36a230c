"""Kernels: a declaration with its two verbs, load and build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.runtime.module import Module, load
from dimorph.settings import Settings

if TYPE_CHECKING:
    from dimorph.aot.builder import Report


class Kernel(Declaration):
    __doc__ = Declaration.__doc__

    def instantiations(self, **values: object) -> InstantiationSet:
        """Return the set that is left when axes are fixed to a value, or narrowed or widened to a list of values.

        An axis that is not named keeps its declared values; a choice axis that is not named is chosen. With every
        problem axis at one value the result is a single specialization.

        Raises:
            DeclarationError: an unknown axis, or a value that the axis neither declares nor accepts.
        """
        return instantiate(self, values)

    def load(self, *, policy: str | None = None, settings: Settings | None = None, **values: object) -> Module:
        """Load the kernel for some values of its axes: `kernel.load(dtype="float32", head_dim=[64, 128])`.

        With every axis at one value this is a specialized module, otherwise one that dispatches at run time. Artifacts
        that are nowhere to be found are compiled, unless the policy is `aot`.

        Args:
            policy: `auto`, `aot` or `jit`; default: that of the settings.
            settings: default: those of the environment.
            values: axis name -> a value, or a list of values.

        Raises:
            DeclarationError: an unknown axis or a value that it does not accept.
            MissingSpecialization: an artifact is not there and may not be compiled.
            BuildError, ToolchainError: it could not be compiled.
        """
        return load(self.instantiations(**values), policy, settings)

    def build(
        self,
        out: Path | str | None = None,
        /,
        *,
        targets: Sequence[str] | None = None,
        archs: Sequence[str] | None = None,
        settings: Settings | None = None,
        **values: object,
    ) -> Report:
        """Build ahead of time everything that `load` with these values needs; see `dimorph.aot.build`.

        Args:
            out: the directory; default: `_dimorph` beside the sources, where `load` looks first.
            targets: names of target levels; default: the best of this machine.
            archs: names of GPU architectures; default: those that the kernel declares.
            settings: default: those of the environment.
            values: axis name -> a value, or a list of values.
        """
        from dimorph import aot  # few processes build ahead, and its imports would double the time of `import dimorph`

        return aot.build(self.instantiations(**values), out, targets=targets, archs=archs, settings=settings)
