"""Explain names that are taken, by Dimorph or by a library, and those that a circle of headers leaves unknown."""

from __future__ import annotations

import re
from pathlib import Path

from dimorph.resolve.author import OURS, Author, Lesson
from dimorph.source.config_header import header_name
from dimorph.toolchain.findings import Finding

# What the headers bring into the global namespace.
_OURS = ("Tensor", "ConstTensor", "View", "Optional", "Extra", "half", "bfloat16")
# The words of GCC (several for templates and types) and of clang, which names no name.
_AGAIN = re.compile(r"redeclared|redefinition of|conflicting declaration|declaration conflicts with target of using")
_OVERLOADED = re.compile(r"unable to deduce 'auto' from '& ?(\w+)'|overloaded function type|overloaded function \"")
_EXPORT = re.compile(r"DIMORPH_EXPORT\s*\((\w+)\)")


def own_name(finding: Finding, author: Author) -> Lesson | None:
    """Explain a type of the author's that has the name of one of Dimorph's."""
    place = author.first(finding.places)
    # The note names the other declaration, which may be one of the author's own.
    ours = any(note.file.startswith(OURS) for note in finding.notes)
    if place is None or not ours or not _AGAIN.search(finding.head.message):
        return None
    named = re.search(rf"\b(?:struct|class|union|enum|using|typedef)\b.*\b({'|'.join(_OURS)})\b", author.line(place))
    if named is None:
        return None
    cause = f"{named[1]} is a name of Dimorph's, which the config header declares"
    return Lesson(cause, "choose another name, or put yours into a namespace", place)


def overloaded_export(finding: Finding, author: Author) -> Lesson | None:
    """Explain an export of a name that several functions have, of which one may be the C library's."""
    place = author.first(finding.places)
    match = _EXPORT.search(author.line(place)) if place else None
    if match is None or not _OVERLOADED.search(finding.head.message):
        return None
    name = match[1]
    own = sum(function.name == name for function, _ in author.functions())
    other = "several functions" if own > 1 else "a function of a library that is included, too"
    return Lesson(f"DIMORPH_EXPORT({name}): {name!r} is the name of {other}", "give this one another name", place)


def circle(finding: Finding, author: Author) -> Lesson | None:
    """Explain a variant's header that is read before one that it includes, which includes the config header."""
    config = header_name(author.unit.kernel)
    place = author.first(finding.places)
    led_to_it = {place.file for place in finding.places}
    for variant in author.unit.variants:
        own = str(variant.root / variant.header)
        if place is None or place.file != own:
            continue
        for path in author.paths:
            name = Path(path).name
            # Only a header that is still being read is among the places.
            if path == own or path not in led_to_it or not re.search(_including(name), author.text(own)):
                continue
            if re.search(_including(config), author.text(path)):
                return Lesson(
                    f"{variant.header}, the header of variant {variant.name}, stands before the rest of {name}: {name} "
                    f"includes {config}, and that {variant.header}",
                    f"include {config} first in each source, or let {variant.header} take what it needs as template "
                    f"arguments in place of including {name}",
                    place,
                )
    return None


def _including(name: str) -> str:
    return rf'(?m)^[ \t]*#\s*include\s*"(?:[^"]*/)?{re.escape(name)}"'
