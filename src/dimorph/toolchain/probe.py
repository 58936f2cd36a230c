"""Compilers asked what they consist of and which version they are: runs them, and is imported only to do so."""

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

_SECONDS = 10.0  # for one small question


def parts(command: Sequence[str], dialect: str, path: str) -> list[str]:
    """The files behind a driver that decide what it produces.

    Raises:
        ToolchainError: the driver cannot be run, or it lacks its C++ compiler.
    """
    return _PARTS[dialect](command, path, _environment(path))


def describe(command: Sequence[str], dialect: str, path: str) -> str:
    """The compiler's name and version, for people."""
    env = _environment(path)
    if dialect == "zig":
        return f"zig {_ask([command[0], 'version'], env).strip()}"
    if dialect == "nvrtc":
        # Its own library may not be named for the version; that of its built-in functions is.
        return f"NVRTC {re.sub(r'.*builtins[.]so[.]', '', command[1])}"
    if dialect == "nvcc":
        return f"nvcc{_ask([command[0], '--version'], env).rpartition('release')[2].partition('Build')[0].rstrip()}"
    return _ask([*command, "--version"], env).partition("\n")[0].strip()


def _environment(path: str) -> dict[str, str]:
    return {"PATH": path, "LC_ALL": "C"}


def _gcc_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    programs = [_program(command, name, path, env) for name in ("cc1plus", "as", "ld")]
    if programs[0] is None:
        raise ToolchainError(
            f"{command[0]} has no C++ compiler behind it (cc1plus): install it, e.g. `apt-get install g++` "
            "or `dnf install gcc-c++`"
        )
    return [program for program in programs if program] + _headers(command, env)


def _clang_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    # The driver may be a script or a link; it says which binary it compiles with.
    planned = _ask([*command, "-###", "-x", "c++", "-fsyntax-only", os.devnull], env)
    backend = re.search(r'^ *"([^"\n]+)" "-cc1"', planned, re.M)
    if backend is None:
        raise ToolchainError(f"{command[0]} does not say what it compiles with: {planned.strip()[:300]}")
    # The binary may be a shell around shared libraries, which hold the compiler; the loader lists them.
    traced = {**env, "LD_TRACE_LOADED_OBJECTS": "1"}
    loaded = process.run([backend[1]], timeout=_SECONDS, cwd=Path("/"), env=traced)
    libraries = re.findall(r"^\s*lib(?:clang|LLVM)\S* => (/\S+)", loaded.output, re.M)
    linker = _program(command, "ld", path, env)
    return [backend[1], *libraries, *([linker] if linker else []), *_headers(command, env)]


def _zig_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    # One binary holds compiler, assembler and linker, and comes together with its headers and libraries.
    return []


def _nvrtc_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    return list(command[1:])


def _nvcc_parts(command: Sequence[str], path: str, env: Mapping[str, str]) -> list[str]:
    # It preprocesses with the host's compiler.
    host = shutil.which("g++", path=path)
    return [*command[1:], *(_gcc_parts((host,), path, env) if host else ())]


def _program(command: Sequence[str], name: str, path: str, env: Mapping[str, str]) -> str | None:
    # The answer is a bare name where the driver leaves the search to PATH.
    return shutil.which(_ask([*command, f"-print-prog-name={name}"], env).strip(), path=path)


def _headers(command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    # <cstddef> reaches the version headers of both libraries and little else.
    rule = _ask([*command, "-M", "-x", "c++", "-include", "cstddef", os.devnull], env)
    return [str(file) for file in parse_make_rule(rule) if str(file) != os.devnull]


def _ask(command: Sequence[str], env: Mapping[str, str]) -> str:
    # At the root, no file of the working directory can stand in for a header.
    try:
        answer = process.run(command, timeout=_SECONDS, cwd=Path("/"), env=env)
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
