"""The author's sources of a unit, and messages about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dimorph.plan.unit import INCLUDE, Unit
from dimorph.source.cpp_text import blanked, line_of
from dimorph.toolchain.diagnostics import Place

if TYPE_CHECKING:
    from dimorph.source.cpp_functions import Function

# How the paths of headers of Dimorph begin.
OURS = f"{INCLUDE}/"


class Lesson(NamedTuple):
    """An explanation of a mistake.

    Attributes:
        cause: what is wrong.
        cure: how to mend it.
        place: where it is; None: where the compiler found it.
    """

    cause: str
    cure: str
    place: Place | None = None


class Author:
    """The sources of a unit that its author wrote: those of the kernel, its variants, and what they include.

    Args:
        unit: the unit.
    """

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.main = str(unit.kernel.root / unit.names[0])
        self._texts: dict[str, str] = {}
        self._code: dict[str, str] = {}

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The paths of the sources, the unit's own first."""
        own = [str(self.unit.kernel.root / name) for name in self.unit.names]
        others = [source.path for source in self.unit.sources if not source.path.startswith(OURS)]
        return tuple(dict.fromkeys([*own, *others]))

    def text(self, path: str) -> str:
        """Return the text of one of the sources; empty for another file."""
        if path not in self._texts:
            self._texts[path] = Path(path).read_text("utf-8", "surrogateescape") if self.owns(path) else ""
        return self._texts[path]

    def code(self, path: str) -> str:
        """Return the text of one of the sources, with blanks in the place of comments and literals."""
        if path not in self._code:
            self._code[path] = blanked(self.text(path))
        return self._code[path]

    def owns(self, file: str) -> bool:
        """Return True if a path, as a compiler prints it, is that of one of the sources."""
        return file in self.paths

    def first(self, places: Iterable[Place]) -> Place | None:
        """Return the first of some places that is in one of the sources."""
        return next((place for place in places if self.owns(place.file)), None)

    def line(self, place: Place) -> str:
        """Return the text of a line, without the blanks around it; empty if there is none."""
        lines = self.text(place.file).split("\n")
        return lines[place.line - 1].strip() if 0 < place.line <= len(lines) else ""

    def find(self, pattern: str) -> Place | None:
        """Return the first place of a pattern outside of comments and literals."""
        for path in self.paths:
            if match := re.search(pattern, self.code(path)):
                return Place(path, line_of(self.code(path), match.start()))
        return None

    def find_include(self, pattern: str) -> Place | None:
        """Return the first place where one of the sources includes a header whose name matches a pattern."""
        named = re.compile(rf'^[ \t]*#\s*include\s*["<](?:{pattern})[">]', re.MULTILINE)
        for path in self.paths:
            if match := named.search(self.text(path)):
                return Place(path, line_of(self.text(path), match.start()))
        return None

    def includes(self, name: str) -> bool:
        """Return True if one of the sources includes a header by its name."""
        return self.find_include(re.escape(name)) is not None

    def top(self) -> Place:
        """Return the place of the first include of the first source, or its first line."""
        text = self.text(self.main)
        match = re.search(r"^[ \t]*#\s*include\b", text, re.MULTILINE)
        return Place(self.main, line_of(text, match.start()) if match else 1)

    def functions(self) -> Iterator[tuple[Function, Place]]:
        """Yield the functions that the unit's own sources define, with their places."""
        from dimorph.source.cpp_functions import functions  # here, because few builds need it

        for path in [str(self.unit.kernel.root / name) for name in self.unit.names]:
            for function in functions(self.code(path)):
                yield function, Place(path, line_of(self.code(path), function.start))

    def lines(self, place: Place, lesson: Lesson) -> list[str]:
        """Return the lines of a message that explains a mistake at a place."""
        told = [f"{place.file}:{place.line}: error: {lesson.cause}"]
        if quoted := self.line(place):
            told.append(f"  {quoted}")
        return [*told, lesson.cure]


def message(lines: Iterable[str]) -> str:
    """Return the lines of a message as one text, which can be printed whatever bytes paths and sources hold."""
    return "\n  ".join(lines).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
