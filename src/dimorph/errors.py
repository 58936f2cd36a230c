"""The exceptions of Dimorph, one type for each kind of failure."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence


def no_descriptors(error: BaseException) -> bool:
    """Return True if the process or the system has no file descriptor left, so that nothing is wrong with the file.

    Such an OSError is raised as it is: it is no fault of a declaration, compiler or store, and may pass.
    """
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


class DimorphError(Exception):
    """The base class of all exceptions that Dimorph defines."""


class DeclarationError(DimorphError, ValueError):
    """An invalid declaration of a kernel, axis or variant, a missing source, or a value that its axis does not accept.

    The message names what is wrong and what was expected: correct the declaration, or the values of the call.
    """


class MissingSpecialization(DimorphError, LookupError):
    """A specialization that no store holds and that may not, or cannot, be compiled.

    Raised by `Kernel.load`, and by a call whose values the module lacks: under the policy `aot`, where there is no
    compiler, for a combination that the kernel does not allow, and while a CUDA graph is being captured. To mend it,
    run `command`, or load with the policy `auto` where a compiler is installed.

    Attributes:
        kernel: the name of the kernel.
        missing: axis name -> the value that was requested.
        available: axis name -> the values that the module holds, or that the kernel declares.
        command: the shell command that builds the specialization ahead of time. None where no command can: no module
            declares the kernel, or a value has no name on a command line.
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
    """A call with another value of an axis than the one that the module was compiled for.

    The message names the axis, the value of the call and the compiled value: pass matching arguments, or load the
    kernel for the value of the call.
    """


class ToolchainError(DimorphError, RuntimeError):
    """No usable compiler, or a setting or argument that names an unusable compiler, target level or architecture.

    The message says what to install or to change; `dimorph doctor` shows the compilers of the machine.
    """


class BuildError(DimorphError, RuntimeError):
    """A compile that failed, sources that would compile to a mistake, or sources that changed meanwhile.

    The message about a refused source begins with its file and line, says what is wrong and where known how to mend it,
    and has at most six lines; `output` has all that the compiler printed.

    Attributes:
        command: the compiler's command line, as a list of arguments.
        exit_code: the exit status of the compiler; negative: the number of the signal that ended it; None: unknown.
        output: everything that the compiler printed.
        context: the kernel, axis values and variant that were being compiled.
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
    """A compile that was killed after `DIMORPH_COMPILE_TIMEOUT` seconds; a larger value gives it more time."""


class CompilerCrashed(BuildError):
    """A compiler that was ended by a signal or ran out of memory; fewer `DIMORPH_JOBS` leave each one more memory."""


class StoreRefused(DimorphError, PermissionError):
    """A store that another user could have written to, or a link inside a store; nothing of it is loaded.

    The message ends with the command that mends the owner or the permissions.
    """


class ArtifactCorrupt(DimorphError, ValueError):
    """An artifact, manifest or record of use that cannot be parsed, or whose content differs from its checksum.

    Loads treat such an artifact as absent and build it again; `verify` and `explain` report it.
    """


class LoadError(DimorphError, RuntimeError):
    """A shared object that cannot be loaded or lacks a symbol, or a call of the NVIDIA driver that failed."""


class Gone(LoadError):
    """The file of an artifact was removed between the search that found it and its load."""


# The errors that tell an author of a mistake, whose message is complete without the frames inside of Dimorph.
AUTHORS = (DeclarationError, BuildError)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun in the right form, e.g. `1 artifact`, `0 artifacts`, `2 entries`.

    Args:
        number: the number of things.
        noun: the form for one.
        plural: the form for any other number; default: the noun with an s.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"
