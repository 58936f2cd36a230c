"""Lists of the files that a compile read, as the compiler, the assembler and the linker made them in the same run.

The flags that ask for them are in `flags.LISTING`. Headers and the assembler's files are listed in files of the working
directory; the directories of headers and the linked files are printed between the compiler's messages.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dimorph.errors import DimorphError
from dimorph.toolchain import flags, process
from dimorph.toolchain.diagnostics import parse_make_rule

_SEARCH = re.compile(
    r"^(?:clang -cc1 version .*\n)?"
    r'(?P<ignored>(?:ignoring \w+ directory ".*"\n(?:  as it is a non-system directory.*\n)?)*)'
    r'#include "\.\.\." search starts here:\n(?P<quoted>(?: .*\n)*)'
    r"#include <\.\.\.> search starts here:\n(?P<angled>(?: .*\n)*)"
    r"End of search list\.\n",
    re.MULTILINE,
)
_NO_DIRECTORY = re.compile(r'^ignoring nonexistent directory "(.*)"$', re.MULTILINE)
# A file that a linker names alone in its line: as it is, as the library that an option named, or as a part of one.
_LINKED = re.compile(
    r"(?:-l\S+ \((?P<option>/[^()]+)\)|\((?P<archive>/[^()]+)\)\S+|(?P<file>/[^()]+?)(?:\([^()/]+\))?)\Z"
)
_LINKER_MODE = re.compile(r"\S*ld(?:\.\w+)?: mode \w+\Z")


class Listing(NamedTuple):
    """The files that a compile read.

    Attributes:
        headers: the source and every header; None: the compiler does not list them.
        assembled: the files that the assembler read.
        linked: the start files, libraries and linker scripts.
        searched: the directories in which headers were searched, in order; empty: not listed.
        missing: directories that would have been searched if they existed.
    """

    headers: tuple[str, ...] | None
    assembled: tuple[str, ...]
    linked: tuple[str, ...]
    searched: tuple[str, ...]
    missing: tuple[str, ...]


def read(work_dir: Path, output: str) -> tuple[Listing, str]:
    """Return the lists of a compile and the rest of its output, which is that of a compile without lists.

    Args:
        work_dir: the working directory of the compile.
        output: its output.
    """
    searched: list[str] = []
    missing: list[str] = []
    if found := _SEARCH.search(output):
        missing = _NO_DIRECTORY.findall(found["ignored"])
        searched = [line[1:] for line in (found["quoted"] + found["angled"]).split("\n") if line]
        output = output[: found.start()] + output[found.end() :]
    linked: dict[str, None] = {}
    rest = []
    for line in output.splitlines(keepends=True):
        file = _linked(line.rstrip("\n"), work_dir)
        if file is None:
            rest.append(line)
        elif file:
            linked[file] = None
    headers, assembled = (_rule(work_dir / name) for name in (flags.HEADERS, flags.ASSEMBLED))
    return Listing(headers, assembled or (), tuple(linked), tuple(searched), tuple(missing)), "".join(rest)


class Searched(NamedTuple):
    """The directories in which a compiler searches; they need not exist.

    Attributes:
        programs: for the programs that it starts, before those of PATH.
        libraries: for start files and libraries.
    """

    programs: tuple[str, ...]
    libraries: tuple[str, ...]


@lru_cache(maxsize=16)
def directories(command: tuple[str, ...], env: tuple[tuple[str, str], ...]) -> Searched:
    """Return where a compiler searches, as it says itself; nowhere if it does not answer.

    Args:
        command: the compiler program and its fixed first arguments.
        env: the variables that it runs with.
    """
    question = [*command, "-print-search-dirs"]
    try:
        answer = process.run(question, timeout=10.0, cwd=Path("/"), env=dict(env), errors="surrogateescape").output
    except DimorphError:
        return Searched((), ())
    lists = dict(re.findall(r"(?m)^(programs|libraries): =?(.*)$", answer))
    found = {name: dict.fromkeys(one.rstrip("/") for one in text.split(":") if one) for name, text in lists.items()}
    return Searched(*(tuple(found.get(name, ())) for name in Searched._fields))


def _linked(line: str, work_dir: Path) -> str | None:
    """Return the file that a linker names in a line; empty if it is not worth naming; None: it is another line."""
    if _LINKER_MODE.match(line):
        return ""
    match = _LINKED.match(line)
    if match is None:
        return None
    file = match["option"] or match["archive"] or match["file"]
    # The objects of this compile are temporary, and are removed by now.
    if file.startswith(f"{work_dir}/") and file.endswith((".o", ".res")) and ": " not in file:
        return ""
    return file if os.path.isfile(file) else None  # noqa: PTH113 (a text that may be no path)


def _rule(file: Path) -> tuple[str, ...] | None:
    try:
        text = os.fsdecode(file.read_bytes())
    except FileNotFoundError:
        return None
    return tuple(str(path) for path in parse_make_rule(text.partition("\n\n")[0]))
