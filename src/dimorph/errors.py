"""One exception type for each thing that can go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class DimorphError(Exception):
    """Base of every exception that Dimorph defines."""


class DeclarationError(DimorphError, ValueError):
    """A kernel, axis or variant is declared in a way that cannot work, or a value does not fit its axis."""


class MissingSpecialization(DimorphError, LookupError):
    """A value or combination that is not there and may not (or could not) be built.

    Attributes:
        kernel: name of the kernel.
        missing: axis name -> the value that was asked for.
        available: axis name -> the values that are there.
        command: the command that would build it, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        kernel: str = "",
        missing: Mapping[str, str] | None = None,
        available: Mapping[str, Sequence[str]] | None = None,
        command: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kernel = kernel
        self.missing = dict(missing or {})
        self.available = {axis: tuple(values) for axis, values in (available or {}).items()}
        self.command = command


class SpecializationMismatch(DimorphError, ValueError):
    """A specialized module was called with a value other than the one it was compiled for."""


class ToolchainError(DimorphError, RuntimeError):
    """No usable compiler was found, or the one that was named cannot be used."""


class BuildError(DimorphError, RuntimeError):
    """The compiler refused a source.

    Attributes:
        command: the command line, as a list.
        exit_code: its exit status (negative: the signal that ended it), None if it did not end by itself.
        output: everything it printed.
        context: what was being compiled, e.g. kernel, axis values and variant.
    """

    def __init__(
        self,
        message: str,
        *,
        command: Sequence[str] = (),
        exit_code: int | None = None,
        output: str = "",
        context: str = "",
    ) -> None:
        super().__init__(message)
        self.command = list(command)
        self.exit_code = exit_code
        self.output = output
        self.context = context


class BuildTimeout(BuildError):
    """The compiler did not end within `DIMORPH_COMPILE_TIMEOUT` seconds and was killed."""


class CompilerCrashed(BuildError):
    """The compiler died of a signal or ran out of memory."""


class StoreRefused(DimorphError, PermissionError):
    """A store, or something inside one, could have been written by somebody else, so it is not loaded."""


class ArtifactCorrupt(DimorphError, ValueError):
    """The content of an artifact is not what its checksum says."""


class LoadError(DimorphError, RuntimeError):
    """A shared object could not be loaded or bound."""


class Gone(LoadError):
    """The file of an artifact is not there any more."""
