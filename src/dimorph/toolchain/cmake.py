"""Ask CMake for a package: configure a project that uses it, and read what CMake would give to the compiler."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dimorph import _lazy
from dimorph.errors import ToolchainError
from dimorph.toolchain import process

_TIMEOUT = 120.0  # seconds; CMake tries the compiler first
_PROJECT = """\
cmake_minimum_required(VERSION 3.16)
project(probe LANGUAGES CXX)
find_package(@NAME@ @AT_LEAST@ REQUIRED)
file(WRITE "${CMAKE_BINARY_DIR}/version.txt" "${@NAME@_VERSION}")
add_library(probe SHARED probe.cc)
set_target_properties(probe PROPERTIES DEFINE_SYMBOL "")
target_link_libraries(probe PRIVATE @TARGET@)
"""
_QUERIES = ("codemodel-v2", "cmakeFiles-v1")
# Flags of CMake's own, or of the language level that the package asks for at least.
_OWN = re.compile(r"-fPIC|-std=.*|-O3|-DNDEBUG|-shared|-Wl,-soname,.*|-Wl,--dependency-file.*")


class Answer(NamedTuple):
    """A package as CMake knows it.

    Attributes:
        version: its version; empty: it states none.
        words: the flags for compiler and linker.
        files: the files that describe it.
    """

    version: str
    words: tuple[str, ...]
    files: tuple[str, ...]


def program(name: str, path: str) -> str | None:
    """Return the path of a program on PATH or beside Python, where pip installs it; None if there is none."""
    return _lazy.shutil.which(name, path=os.pathsep.join([path, str(Path(sys.executable).parent)]))


def ask(
    cmake: str, name: str, at_least: str, target: str, *, variables: Mapping[str, str], env: Mapping[str, str]
) -> Answer | str:
    """Ask for a package; return what CMake says if it does not find it.

    Args:
        cmake: the program.
        name: the name of the package.
        at_least: the oldest version that serves; empty: any.
        target: the target to link.
        variables: name -> value of CMake's variables.
        env: the complete environment.

    Raises:
        ToolchainError: CMake cannot be started, or does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="dimorph-cmake-") as scratch:
        source, build = Path(scratch, "source").resolve(), Path(scratch, "build").resolve()
        query = build / ".cmake" / "api" / "v1" / "query"
        query.mkdir(parents=True)
        source.mkdir()
        for kind in _QUERIES:
            (query / kind).touch()
        text = _PROJECT
        for word, value in (("@NAME@", name), ("@AT_LEAST@", at_least), ("@TARGET@", target)):
            text = text.replace(word, value)
        (source / "CMakeLists.txt").write_text(text, "utf-8")
        (source / "probe.cc").touch()
        ninja = program("ninja", env["PATH"])
        generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
        given = [f"-D{key}={value}" for key, value in {"CMAKE_BUILD_TYPE": "Release", **variables}.items()]
        command = [cmake, "-Wno-dev", *generator, *given, "-S", str(source), "-B", str(build)]
        done = process.run(command, timeout=_TIMEOUT, cwd=source, env={**env, "TMPDIR": scratch})
        if done.exit_code != 0:
            found = re.search(r"CMake Error.*?:\n+(.*?)(?:\n\n\n|\n-- |\Z)", done.output, re.S)
            return " ".join((found[1] if found else done.output).split())
        reply = query.parent / "reply"
        version = (build / "version.txt").read_text("utf-8").strip()
        return Answer(version, tuple(_words(reply)), tuple(_files(reply, source)))


def _words(reply: Path) -> Iterator[str]:
    """Yield the flags with which CMake would compile and link the project."""
    target = _reply(reply, "target-probe-*.json")
    for group in target.get("compileGroups", ()):
        yield from (f"-isystem{one['path']}" for one in group.get("includes", ()))
        yield from (f"-D{one['define']}" for one in group.get("defines", ()))
        yield from _fragments(group.get("compileCommandFragments", ()))
    yield from _fragments(target.get("link", {}).get("commandFragments", ()))


def _fragments(given: Sequence[Mapping[str, str]]) -> Iterator[str]:
    import shlex

    for one in given:
        yield from (word for word in shlex.split(one["fragment"]) if not _OWN.fullmatch(word))


def _files(reply: Path, source: Path) -> Iterator[str]:
    for one in _reply(reply, "cmakeFiles-v1-*.json")["inputs"]:
        if one.get("isExternal") and not one.get("isCMake") and not Path(one["path"]).is_relative_to(source.parent):
            yield one["path"]


def _reply(directory: Path, pattern: str) -> Any:
    found = sorted(directory.glob(pattern))
    if not found:
        raise ToolchainError(f"cmake has no answer {pattern} in its file API; CMake 3.16 or newer is needed")
    return json.loads(found[-1].read_text("utf-8"))
