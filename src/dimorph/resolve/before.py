"""Mistakes that a compiler accepts, found in the text of the sources before it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from keyword import iskeyword
from typing import TYPE_CHECKING, NamedTuple

from dimorph.errors import BuildError
from dimorph.plan.unit import Unit
from dimorph.resolve.author import Author, Lesson, message
from dimorph.source.config_header import header_name
from dimorph.source.cpp_text import line_of, macro_arguments
from dimorph.toolchain.diagnostics import Place

if TYPE_CHECKING:
    from dimorph.source.cpp_functions import Function

# Every build asks this module, so expressions are compiled only for a text that gives reason to.
_EXPORT = r"\bDIMORPH_EXPORT\s*\(([^()]*)\)"
_RAISES = r"\bDIMORPH_(?:CHECK|CHECK_TYPE|RAISE)\b|\bmake_handle\b|\btry\b"
# What may begin a function inside of another.
_INNER = r"\boperator\b|\]\s*(?:\([^()]*\)[^{};]*)?\{"


def check(unit: Unit) -> None:
    """Refuse sources with a mistake that would compile.

    Raises:
        BuildError: there is one; the message names its place, the cause and the cure.
    """
    author = Author(unit)
    if lesson := _mistake(author):
        lines = author.lines(lesson.place or author.top(), lesson)
        raise BuildError(message([*lines, f"before compiling {unit.label}"]), context=unit.label)


def _mistake(author: Author) -> Lesson | None:
    """Return the explanation of a mistake in the sources of a unit; None if there is none that is certain."""
    if author.unit.kind == "entry":
        # Any other entry is no kernel of an author's: the thread pool has functions of another kind.
        kernel = author.unit.kernel
        if not kernel.case and not author.includes("dimorph/entry.h") and not author.includes(header_name(kernel)):
            return None
        return _exports(author) or _endless(author) or _bound(author)
    if author.unit.kind == "case":
        return _noexcept(author) or _unread(author) or _unfilled(author) or _unlaunched(author)
    return _dated(author)


def _dated(author: Author) -> Lesson | None:
    """Explain device code that contains the time of its compile; compilers of host code refuse it themselves."""
    names = ("__DATE__", "__TIME__", "__TIMESTAMP__")
    if not any(name in author.text(path) for path in author.paths for name in names):
        return None
    place = author.find(rf"\b(?:{'|'.join(names)})\b")
    cause = "this is another text at each build, but equal keys must give equal objects"
    return Lesson(cause, "leave out the date and the time, or pass them as arguments", place) if place else None


def _exports(author: Author) -> Lesson | None:
    """Explain an entry that exports nothing, or something that Python cannot name."""
    exports = author.unit.exports
    mentions = author.text(author.main).count("DIMORPH_EXPORT")
    if exports and len(exports) == mentions and not any(map(iskeyword, exports)):
        return None
    code = author.code(author.main)
    elsewhere = author.find(r"\bDIMORPH_EXPORT\b") if not exports else None
    if elsewhere and elsewhere.file != author.main:
        cause = f"this DIMORPH_EXPORT is in a header, and Python gets only those of {author.unit.names[0]} itself"
        return Lesson(cause, f"move it to {author.unit.names[0]}", elsewhere)
    if not exports and not elsewhere:
        defined = [(function.name, place) for function, place in author.functions()]
        name, place = defined[-1] if defined else ("name", author.top())
        return Lesson(
            f"the entry {author.unit.names[0]} exports no function, so Python has none to call",
            f"write DIMORPH_EXPORT({name}) after the function",
            place,
        )
    for match in re.finditer(_EXPORT, code):
        name = match[1].strip()
        place = Place(author.main, line_of(code, match.start()))
        if not re.fullmatch(r"\w+", name):
            cure = f"write its plain name, DIMORPH_EXPORT({name.rpartition('::')[2] or 'name'}), inside its namespace"
            return Lesson(f"DIMORPH_EXPORT({name}): expected the name of a function", cure, place)
        if iskeyword(name):
            return Lesson(f"DIMORPH_EXPORT({name}): {name} is a keyword of Python", "give it another name", place)
    return None


def _endless(author: Author) -> Lesson | None:
    """Explain an exported function that calls itself in place of the case's function, which often has its name."""
    for name in author.unit.exports:
        call = rf"(?<![\w.:>]){name}\s*\("
        if len(re.findall(call, author.text(author.main))) < 2:
            continue
        for function, place in author.functions():
            code = author.code(place.file)
            body = code[function.body : function.end]
            itself = re.search(call, body) if function.name == name else None
            # One that also calls the case, or that no case has and that does not dispatch, may end.
            if itself is None or re.search(rf"\bDIMORPH_CALL\s*\(\s*{name}\b", body):
                continue
            if name in author.unit.kernel.functions or "DISPATCH_" in body:
                return Lesson(
                    f"the exported function {name!r} calls itself and not that of the case, so the call would not end",
                    f"write DIMORPH_CALL({name})(...) to call the function of the case",
                    Place(place.file, line_of(code, function.body + itself.start())),
                )
    return None


def _bound(author: Author) -> Lesson | None:
    """Explain a DISPATCH_ with another name than the axis binds, which goes unnoticed where the axis has one value."""
    if "DISPATCH_" not in author.text(author.main):
        return None
    code = author.code(author.main)
    for axis in author.unit.kernel.axes:
        count = len(axis.binds)
        for match in re.finditer(rf"\bDISPATCH_{axis.name}\s*(\()", code):
            given = macro_arguments(code, match.start(1))
            line = code[code.rfind("\n", 0, match.start()) + 1 : match.start()]
            if tuple(given[count : 2 * count]) == axis.binds or line.lstrip().startswith("#"):
                continue
            binds = ", ".join(axis.binds)
            got = ", ".join(given[count : 2 * count]) or "nothing"
            values = ", ".join(given[:count]) if len(given) > 2 * count else "value of this call"
            return Lesson(
                f"DISPATCH_{axis.name}: expected {binds}, which axis {axis.name} binds, after the value, got {got}",
                f"write DISPATCH_{axis.name}({values}, {binds}, ...)",
                Place(author.main, line_of(code, match.start())),
            )
    return None


class _Raise(NamedTuple):
    """An error that a function lets out: the macro that raises it, the function it stands in, and its place."""

    macro: str
    function: str
    place: Place


def _noexcept(author: Author) -> Lesson | None:
    """Explain a check in or below a function that lets no exception out, which would end the process."""
    signs = ("DIMORPH_CHECK", "DIMORPH_RAISE", "make_handle")
    if not any(sign in text for text in map(author.text, author.paths) for sign in signs):
        return None
    defined = list(author.functions())
    names = [function.name for function, _ in defined]
    raising: dict[str, _Raise] = {}
    known = -1
    while known < len(raising):  # each round finds callers of those that are known
        known = len(raising)
        for function, place in defined:
            raised = _raised(function, author.code(place.file), place.file, raising)
            if raised and re.search(r"\bnoexcept\b(?!\s*\()", function.after):
                above = f"{function.name!r}, which is noexcept"
                within = above if raised.function == function.name else f"{raised.function!r}, below {above}"
                cure = f"remove noexcept from {function.name!r}, or check in the entry"
                return Lesson(f"{raised.macro} raises in {within}, so the process would end", cure, raised.place)
            if raised and names.count(function.name) == 1:  # of overloads, the one that is called may raise nothing
                raising[function.name] = raised
    return None


def _unfilled(author: Author) -> Lesson | None:
    """Explain a case that never asks for the parameters of its variant, which would all be 0."""
    params = [param.name for variant in author.unit.variants for param in variant.params]
    for function, place in author.functions() if params else ():
        code = author.code(place.file)
        extra = re.search(r"\bExtra\b[\s&]*(\w*)", code[function.start : function.body])
        # A function may leave it to another, and hands it on.
        if extra and not (extra[1] and re.search(rf"\b{extra[1]}\b", code[function.body : function.end])):
            name = extra[1] or "extra"
            return Lesson(
                f"{function.name!r} never sets the variant's parameters ({', '.join(params)}), so each would be 0",
                f"write: if (!{name}.fill(params)) return;",
                place,
            )
    return None


def _raised(function: Function, code: str, file: str, raising: Mapping[str, _Raise]) -> _Raise | None:
    """Return the first error that a function lets out; None if there is none that is certain."""
    calls = "".join(rf"|(?<![\w.:>])({name})\s*\(" for name in raising)
    match = re.search(_RAISES + calls, code[function.body : function.end])
    if match is None or match[0] == "try":
        return None
    if re.search(_INNER, code[function.body : function.body + match.start()]):
        return None  # it may be in a body of parallel_for, whose errors reach the caller
    if match.lastindex:
        return raising[match[match.lastindex]]
    return _Raise(match[0], function.name, Place(file, line_of(code, function.body + match.start())))


def _unread(author: Author) -> Lesson | None:
    """Explain a variant's parameter that no source reads: the struct would keep a value of its own."""
    for variant in author.unit.variants:
        if variant.parts:
            continue
        header = str(variant.root / variant.header)
        for param in variant.params:
            texts = [author.text(path) for path in (header, *author.paths)]
            if any(f"{mark}{param.name}" in text for text in texts for mark in (".", "->", "::")):
                continue
            there = author.find(rf"\bstruct\s+{variant.struct}\b") or Place(header, 1)
            return Lesson(
                f"variant {variant.name}: nothing reads its parameter {param.name!r} from the params struct",
                f"read it, e.g. in a constructor: explicit {variant.struct}(const Params& params) : "
                f"{param.name}(params.{param.name}) {{}}",
                there,
            )
    return None


def _unlaunched(author: Author) -> Lesson | None:
    """Explain a case that cannot launch the device code of its kernel."""
    kernel = author.unit.kernel
    if not kernel.device or author.includes("dimorph/cuda.h"):
        return None
    # A header of somebody else's, or one that a macro names, may include it.
    if kernel.dependencies or author.find(r"\bDIMORPH_LAUNCH\b|#[ \t]*include[ \t]+[A-Za-z_]"):
        return None
    sources = ", ".join(kernel.device)
    cause = f"the case launches nothing, and the kernel has device sources ({sources})"
    return Lesson(cause, "write #include <dimorph/cuda.h>, and DIMORPH_LAUNCH in the case", author.top())
