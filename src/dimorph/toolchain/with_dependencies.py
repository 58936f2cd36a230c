"""A compiler together with the dependencies of a kernel, as they were found on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dimorph import _lazy
from dimorph.errors import ToolchainError
from dimorph.toolchain.compiler import DeviceReport, Level
from dimorph.toolchain.cuda import CudaCompiler
from dimorph.toolchain.found import Found
from dimorph.toolchain.host import HostCompiler
from dimorph.toolchain.identity import Identity

if TYPE_CHECKING:
    from dimorph.toolchain.process import Completed, Group


class WithDependencies(NamedTuple):
    """A compiler that finds the headers and libraries of some dependencies; see `dimorph.toolchain.compiler.Compiler`.

    What the dependencies are on this machine is part of its identity, so that each version of a library has artifacts
    of its own, and packaged artifacts serve without any.

    Attributes:
        compiler: the compiler itself.
        dependencies: what was found of them.
    """

    compiler: HostCompiler | CudaCompiler
    dependencies: tuple[Found, ...]

    @property
    def command(self) -> tuple[str, ...]:
        """The program, as an absolute path, and its fixed first arguments."""
        return self.compiler.command

    @property
    def dialect(self) -> str:
        """The kind of command line that it takes."""
        return self.compiler.dialect

    @property
    def path(self) -> str:
        """The PATH that it runs with."""
        return self.compiler.path

    def compile_command(
        self,
        source: Path,
        output: Path,
        *,
        include_dirs: Sequence[Path] = (),
        system_include_dirs: Sequence[Path] = (),
        prefix_map: Mapping[Path, str] | None = None,
        extra_flags: Sequence[str] = (),
        **rest: Any,
    ) -> list[str]:
        """Return the command line of the compiler with what the dependencies add to it."""
        roots = {place: directory for directory, place in self._places().items()}
        defines = [f"-D{define}" for one in self.dependencies for define in one.defines]
        if isinstance(self.compiler, CudaCompiler):
            # It takes neither system directories nor flags, and all its directories are searched in order.
            dirs = (*include_dirs, *map(Path, roots.values()))
            return [*self.compiler.compile_command(source, output, include_dirs=dirs, **rest), *defines]
        return self.compiler.compile_command(
            source,
            output,
            include_dirs=include_dirs,
            system_include_dirs=(*system_include_dirs, *map(Path, roots.values())),
            prefix_map={**(prefix_map or {}), **{Path(path): f"/{place}" for place, path in roots.items()}},
            extra_flags=(*defines, *self._link(), *extra_flags),
            **rest,
        )

    def roots(self) -> dict[str, Path]:
        """Return the directories of headers and libraries, by name."""
        named = {place: Path(directory) for directory, place in self._places().items()}
        for one in self.dependencies:
            files = [Path(library.word) for library in one.libraries if library.how != "system" and library.soname]
            named |= {f"{one.name}.lib{number}": file.parent for number, file in enumerate(files)}
        return {**self.compiler.roots(), **named}

    def _places(self) -> dict[str, str]:
        """Return directory of headers -> its name, in order."""
        named: dict[str, str] = {}
        for one in self.dependencies:
            for number, directory in enumerate(one.include_dirs):
                named.setdefault(directory, f"{one.name}.{number}")
        return named

    def compile_words(self) -> list[str]:
        """Return what the dependencies add to a command that only compiles."""
        dirs = [word for directory in self._places() for word in ("-isystem", directory)]
        return [*dirs, *(f"-D{define}" for one in self.dependencies for define in one.defines)]

    def _link(self) -> list[str]:
        linked = [(one, library) for one in self.dependencies for library in one.libraries]
        words = [library.word for _, library in linked]
        if self.dialect == "zig" and (left := [one.name for one, library in linked if library.word.startswith("-l")]):
            raise ToolchainError(
                f"the library {left[0]} is one of the system's, whose directories zig does not search: name another "
                "compiler in DIMORPH_CXX, such as g++, or declare the files with `library`"
            )
        # Where copies of libraries lie beside an object, tools that inspect wheels find them, too.
        return [*words, "-Wl,-rpath,$ORIGIN"] if words else []

    def tools(self) -> Sequence[str]:
        """Return the programs that the compiler searches for, and the libraries that are linked."""
        files = [library.word for one in self.dependencies for library in one.libraries if library.word.startswith("/")]
        return (*self.compiler.tools(), *(files if isinstance(self.compiler, HostCompiler) else ()))

    def environment(self, work_dir: Path, memo_dir: Path | None = None) -> dict[str, str]:
        """Return the complete environment for a compile."""
        return self.compiler.environment(work_dir, memo_dir)

    def identity(self, memo_dir: Path | None, *, keep: bool = True) -> Identity:
        """Return the identity of the compiler and of the dependencies as they are on this machine."""
        own = self.compiler.identity(memo_dir, keep=keep)
        whole = _lazy.json.dumps([own.id, [one.identity for one in self.dependencies]])
        digest = _lazy.hashlib.sha256(whole.encode()).hexdigest()[: len(own.id)]
        return Identity(digest, f"{own.description} with {', '.join(map(str, self.dependencies))}")

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        work_dir: Path,
        memo_dir: Path | None,
        group: Group | None = None,
    ) -> Completed:
        """Run a command line of `compile_command`."""
        return self.compiler.run(command, timeout=timeout, work_dir=work_dir, memo_dir=memo_dir, group=group)

    def hint(self, memo_dir: Path | None) -> str:
        """Return why the next compile takes unusually long."""
        return self.compiler.hint(memo_dir)

    def suffix(self, target: Level) -> str:
        """Return the file suffix of the objects."""
        return self.compiler.suffix(target)

    def check(self, target: Level) -> None:
        """Refuse a target whose objects this machine could not load."""
        self.compiler.check(target)

    def report(self, target: Level, output: str) -> DeviceReport | None:
        """Return the report on device code."""
        return self.compiler.report(target, output)
