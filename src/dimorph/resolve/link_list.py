"""List the shared libraries of others that an object needs, just after it was linked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dimorph.store.links import Link
from dimorph.toolchain import dynamic
from dimorph.toolchain.compiler import Compiler
from dimorph.toolchain.found import Found, Library


def made(output: Path, compiler: Compiler, linked: Iterable[str], installs: Mapping[str, str]) -> dict[Link, str]:
    """Return the links of an object that was just made, in the order to load them, each with the library's path.

    Args:
        output: the object.
        compiler: the compiler that made it.
        linked: the files that the linker named.
        installs: name of a dependency -> the command that installs it.
    """
    if not compiler.dependencies:
        return {}
    names = dynamic.read(output)
    needed = names.needed if names else ()
    known = {link.file: (link, path) for link, path in _candidates(compiler.dependencies, linked, installs)}
    ordered: dict[Link, str] = {}
    for link, path in (known[name] for name in needed if name in known):
        ordered |= {**(_beside(link, path) if link.how == "bundled" else {}), link: path}
    return ordered


def _candidates(
    found: Iterable[Found], linked: Iterable[str], installs: Mapping[str, str]
) -> Iterator[tuple[Link, str]]:
    by_stem = {Path(path).name.partition(".")[0]: path for path in linked if ".so" in Path(path).name}
    for one in found:
        for library in one.libraries:
            path = library.word if library.word.startswith("/") else by_stem.get(f"lib{library.word[2:]}", "")
            soname = library.soname or _soname(path)
            if soname:
                yield _link(one, library, soname, installs.get(one.name, "")), path


def _link(one: Found, library: Library, soname: str, install: str) -> Link:
    if library.how != "required":
        return Link(one.name, one.version, soname, library.how, install=install)
    mend = install or f"pip install {library.package}"
    return Link(one.name, one.version, soname, library.how, library.package, library.path, mend)


def _soname(path: str) -> str:
    names = dynamic.read(Path(path)) if path else None
    return names.soname if names else ""


def _beside(link: Link, path: str) -> dict[Link, str]:
    """Return the libraries that a bundled one needs and that lie beside it, and so on, in the order to load them.

    The directories of the system hold everything, so of a library there the copy is alone.
    """
    found: dict[Link, str] = {}
    if os.path.dirname(os.path.realpath(path)) in dynamic.system_dirs():  # noqa: PTH120
        return found
    seen = {link.file}

    def visit(file: Path) -> None:
        names = dynamic.read(file)
        for name in names.needed if names else ():
            other = file.parent / name
            if name not in seen and other.is_file():
                seen.add(name)
                visit(other)
                found[replace(link, file=name)] = str(other)

    visit(Path(path))
    return found
