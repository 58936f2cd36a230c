"""Find a compiler's files and its version by running it; imported only when a compiler has to be run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from dimorph.errors import BuildError, ToolchainError
from dimorph.toolchain import process
from dimorph.toolchain.diagnostics import parse_make_rule

_SECONDS = 10.0  # the time limit of one run, which compiles nothing


def parts(command: Sequence[str], dialect: str, path: str, variables: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Return the files besides the compiler program that determine its output.

    Args:
        command: the compiler program and its fixed first arguments; of CUDA's compilers, the files they consist of.
        dialect: `gcc`, `clang`, `zig`, `nvrtc` or `nvcc`.
        path: the PATH in which the program finds the programs that it starts.
        variables: the other variables of the environment that the program gets.

    Raises:
        ToolchainError: the program cannot be run, or its C++ compiler proper is missing.
    """
    return _PARTS[dialect](command, path, _environment(path, variables))


def describe(command: Sequence[str], dialect: str, path: str, variables: Sequence[tuple[str, str]] = ()) -> str:
    """Return the compiler's name and version, for people; the arguments are those of `parts`.

    Raises:
        ToolchainError: the program cannot be run.
    """
    env = _environment(path, variables)
    if dialect == "zig":
        return f"zig {_ask([command[0], 'version'], env).strip()}"
    if dialect == "nvrtc":
        # The version is in the name of the library of its built-in functions; its main library may have none.
        return f"NVRTC {re.sub(r'.*builtins[.]so[.]', '', command[1])}"
    if dialect == "nvcc":
        return f"nvcc{_ask([command[0], '--version'], env).rpartition('release')[2].partition('Build')[0].rstrip()}"
    first = _ask([*command, "--version"], env).partition("\n")[0].strip()
    return first.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _environment(path: str, variables: Sequence[tuple[str, str]]) -> dict[str, str]:
    return {**dict(variables), "PATH": path, "LC_ALL": "C"}


def _programs(command: Sequence[str]) -> list[str]:
    """Return the programs in a command after the first, e.g. of `ccache g++` the latter."""
    return [word for word in command[1:] if word.startswith("/")]


def _gcc_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    programs = [_program(command, name, path, env) for name in ("cc1plus", "as", "ld")]
    if programs[0] is None:
        raise ToolchainError(
            f"{command[0]} finds no C++ compiler proper (cc1plus): install it, e.g. `apt-get install g++` "
            "or `dnf install gcc-c++`"
        )
    return [*_programs(command), *(program for program in programs if program), *_headers(command, env)]


def _clang_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    # The program may be a script or a link; `-###` prints the path of the binary that compiles.
    planned = _ask([*command, "-###", "-x", "c++", "-fsyntax-only", os.devnull], env)
    backend = re.search(r'^ *"([^"\n]+)" "-cc1"', planned, re.M)
    if backend is None:
        raise ToolchainError(f"{command[0]} -### names no compiler binary (-cc1): {planned.strip()[:300]}")
    # The compiler may be in shared libraries that the binary loads; the loader lists them.
    traced = {**env, "LD_TRACE_LOADED_OBJECTS": "1"}
    loaded = process.run([backend[1]], timeout=_SECONDS, cwd=Path("/"), env=traced, errors="surrogateescape")
    libraries = re.findall(r"^\s*lib(?:clang|LLVM)\S* => (/\S+)", loaded.output, re.M)
    linker = _program(command, "ld", path, env)
    return [*_programs(command), backend[1], *libraries, *([linker] if linker else []), *_headers(command, env)]


def _zig_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    # One binary contains compiler, assembler and linker, and is released together with its headers and libraries.
    return []


def _nvrtc_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    return list(command[1:])


def _nvcc_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    # nvcc preprocesses with the host compiler.
    host = shutil.which("g++", path=path)
    return [*command[1:], *(_gcc_parts((host,), path, env) if host else ())]


def _program(command: Sequence[str], name: str, path: str, env: Mapping[str, str]) -> str | None:
    # The answer is a bare name if the compiler would search PATH for the program.
    return shutil.which(_ask([*command, f"-print-prog-name={name}"], env).strip(), path=path)


def _headers(command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    # <cstddef> includes the headers with the versions of the C and C++ libraries, and little else.
    rule = _ask([*command, "-M", "-x", "c++", "-include", "cstddef", os.devnull], env)
    files = [str(file) for file in parse_make_rule(rule) if str(file) != os.devnull and file.is_file()]
    if not files:
        raise ToolchainError(f"{shlex.join(command)} -M printed no list of headers: {rule.strip()[:300]!r}")
    return files


def _ask(command: Sequence[str], env: Mapping[str, str]) -> str:
    # The working directory is the root, so that no file of the caller's directory is taken for a header.
    try:
        # Paths in its answers must lead to files, whatever their bytes.
        answer = process.run(command, timeout=_SECONDS, cwd=Path("/"), env=env, errors="surrogateescape")
    except BuildError as error:
        raise ToolchainError(f"the compiler cannot be identified: {error}") from error
    if answer.exit_code != 0:
        raise ToolchainError(f"{shlex.join(command)} failed ({answer.exit_code}): {answer.output.strip()[:300]}")
    return answer.output


_PARTS = {
    "gcc": _gcc_parts,
    "clang": _clang_parts,
    "zig": _zig_parts,
    "nvrtc": _nvrtc_parts,
    "nvcc": _nvcc_parts,
}
