"""The class `Kernel`: a declaration with the methods that load it and build it ahead of time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.errors import AUTHORS
from dimorph.runtime.module import Module, load
from dimorph.settings import Settings

if TYPE_CHECKING:
    from concurrent.futures import Future

    from dimorph.aot.builder import Report


class Kernel(Declaration):
    __doc__ = Declaration.__doc__

    if not TYPE_CHECKING:  # a type checker knows what there is, and refuses the rest by itself

        def __getattr__(self, name: str) -> object:
            if name.startswith("_"):  # copy and pickle look such names up before there are fields
                raise AttributeError(name)
            raise AttributeError(f"kernel {self.name} has no attribute {name!r}: {_load_first(self, name)}")

        def __call__(self, *args: object, **named: object) -> object:
            function = (*self.functions, self.name)[0]
            raise TypeError(
                f"kernel {self.name} is a declaration, which cannot be called: {_load_first(self, function)}"
            )

    def instantiations(self, **values: object) -> InstantiationSet:
        """Return the instantiation set of the kernel for some values of its axes.

        Args:
            values: axis name -> one value, or a list of values. The values may go beyond the declared ones, if the axis
                accepts them. An axis that is not named keeps its declared values; a choice axis that is not named is
                computed by its function. With every problem axis at one value, the set is one specialization.

        Raises:
            DeclarationError: an axis is unknown, or does not accept a value.
        """
        return instantiate(self, values)

    def load(self, *, policy: str | None = None, settings: Settings | None = None, **values: object) -> Module:
        """Load the kernel for some values of its axes: `kernel.load(dtype="float32", head_dim=[64, 128])`.

        With every axis at one value the result is a specialized module, otherwise a module that dispatches at run time.
        Artifacts that no store holds are compiled, unless the policy is `aot`; cases of a dispatching module are loaded
        when they are first called.

        Args:
            policy: `auto`, `aot` or `jit`; default: the policy of the settings.
            settings: default: those of the environment.
            values: axis name -> one value, or a list of values; see `instantiations`.

        Raises:
            DeclarationError: an axis is unknown or does not accept a value, or a source is missing.
            MissingSpecialization: an artifact is in no store, and may not be compiled or there is no compiler.
            BuildError: an artifact could not be compiled.
            ToolchainError: a setting names an unknown target level or architecture.
            LoadError: an artifact could not be loaded.
            OSError: no file descriptor is left, or the file that `DIMORPH_RECORD` names cannot be written.
            ArtifactCorrupt: the file that `DIMORPH_RECORD` names is no record.
            ValueError: `policy`, or an environment variable, has an invalid value.
        """
        try:
            return load(self.instantiations(**values), policy, settings)
        except AUTHORS as error:
            # The frames inside of Dimorph tell the author nothing.
            raise error.with_traceback(None) from None

    def load_in_background(
        self, *, policy: str | None = None, settings: Settings | None = None, **values: object
    ) -> Future[Module]:
        """Load the kernel in a thread of its own, so that the caller goes on with what it has until then.

        The thread and its compiles have a lower priority (`nice` 10), so that they leave the CPUs to the caller.

        A program that may not wait serves with a module for all values, loads the one for the value in use in the
        background, and changes to it as soon as the future is `done()`. The process may end before the load does.

        Args:
            policy, settings, values: as for `load`; settings are read from the environment at the call.

        Returns:
            The future, whose `result()` is the module; it raises what `load` raises.

        Raises:
            DeclarationError: an axis is unknown or does not accept a value.
            ValueError: an environment variable has an invalid value.
        """
        from dimorph.runtime import background  # here, because few processes need it
        from dimorph.settings import current

        try:
            wanted = self.instantiations(**values)
        except AUTHORS as error:
            raise error.with_traceback(None) from None
        found = settings or current()
        return background.start(lambda: load(wanted, policy, found), f"load of {self.name}")

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
            out: the directory to build into; default: `_dimorph` beside the sources, which `load` searches first.
            targets: names of target levels; default: the best one that this CPU runs.
            archs: names of GPU architectures; default: those that the kernel declares.
            settings: default: those of the environment.
            values: axis name -> one value, or a list of values; see `instantiations`.
        """
        from dimorph import aot  # few processes build ahead, and its imports would double the time of `import dimorph`

        try:
            return aot.build(self.instantiations(**values), out, targets=targets, archs=archs, settings=settings)
        except AUTHORS as error:
            raise error.with_traceback(None) from None


def _load_first(kernel: Kernel, function: str) -> str:
    return f"load it, and call the function of the module: {kernel.name}.load(...).{function}(...)"
