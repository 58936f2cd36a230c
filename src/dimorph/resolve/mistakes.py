"""Explain the errors that common mistakes of kernel authors cause: the cause and the cure, in the author's words.

A compiler that reports such a mistake talks of macros, templates and generated names. The explanations go by those
names, which are Dimorph's own, and not by the words of one compiler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from dimorph.plan.unit import INCLUDE
from dimorph.resolve import clashes, expressions
from dimorph.resolve.author import OURS, Author, Lesson
from dimorph.source.config_header import header_name
from dimorph.source.cpp_functions import Function
from dimorph.source.cpp_text import line_of
from dimorph.toolchain.diagnostics import Place
from dimorph.toolchain.findings import Finding

# A name that a compiler does not know, in the words of GCC, clang and NVIDIA's compilers.
_UNKNOWN = re.compile(
    r"'(?:\w*::)*(\w+)'(?: in namespace '[\w:]+')? (?:was not declared|has not been declared|does not name a type"
    r"|is not a member of|has no member named)"
    r"|(?:undeclared identifier|unknown type name|no type named|no member named|no template named) '(?:\w*::)*(\w+)'"
    r'|identifier "(\w+)" is undefined'
)
_NO_MEMBER = re.compile(r"""has no member (?:named )?['"](\w+)['"]|no member named '(\w+)'""")
_AMBIGUOUS = re.compile(
    r"""(?:member|reference to) '(?:\w*::)*(\w+)' is ambiguous|member '(\w+)' found in multiple base classes"""
    r"""|"(?:\w*::)*(\w+)" is ambiguous"""
)
_STATIC = re.compile(r"static assertion failed(?: due to requirement '.*?')?(?::| with) \"?([^\"\n]+)\"?")
_NO_HEADER = re.compile(r"""([^\s'":]+): No such file|'([^']+)' file not found|cannot open source file "([^"]+)\"""")
_STD = r"\b(?:std::)?(?:basic_)?(string_view|string|vector|optional|array|span|map|pair|tuple)\b"
_INSTEAD = {
    "string": "a str arrives as dimorph::Str",
    "string_view": "a str arrives as dimorph::Str",
    "optional": "an argument that may be None is an Optional<T>",
    "pair": "several results are dimorph::Results<A, B>",
    "tuple": "several results are dimorph::Results<A, B>",
}
_ARRAY = "an array arrives as a ConstTensor, or as a Tensor to write"


def explain(found: Sequence[Finding], author: Author) -> tuple[Finding, Lesson] | None:
    """Return the error that a known mistake causes, and its explanation; None: no mistake that is known.

    Args:
        found: the errors in the compiler's output, at least one.
        author: the author's sources.
    """
    if author.unit.kind != "device" and (lesson := _structure(author)):
        return found[0], lesson
    for rule in _RULES:
        for finding in found:
            if lesson := rule(finding, author):
                return finding, lesson
    return None


def _structure(author: Author) -> Lesson | None:
    """Explain a source that lacks what every entry or case includes."""
    kernel, kind = author.unit.kernel, author.unit.kind
    name, header = author.unit.names[0], header_name(kernel)
    own, other = ("dimorph/entry.h", "dimorph/case.h") if kind == "entry" else ("dimorph/case.h", "dimorph/entry.h")
    if wrong := author.find_include(re.escape(other)):
        return Lesson(f"{name} is the {kind} and includes <{other}>", f"write #include <{own}> instead", wrong)
    if kind == "case" and not author.find(r"\bDIMORPH_CASE\b"):
        return _outside(next((found for found in author.functions() if found[0].name in kernel.functions), None))
    if author.includes(header) or author.find_include(rf"\w+_config\.h(?<!{header})"):
        return None
    if kind == "case" or author.find(r"\bDIMORPH_CALL\b|\bDISPATCH_\w"):
        cure = f'write #include "{header}", which the build generates'
        return Lesson(f"{name} does not include the config header {header}", cure, author.top())
    if not author.includes(own) and not author.includes("dimorph/cuda.h"):
        return Lesson(f"the {kind} {name} does not include <{own}>", f"write #include <{own}> first", author.top())
    return None


def _unknown(finding: Finding) -> str:
    match = _UNKNOWN.search(finding.head.message)
    return next(filter(None, match.groups()), "") if match else ""


def _near(name: str, known: Iterable[str]) -> list[str]:
    """Return the one of some names that is most like `name`, if one is like it."""
    from difflib import get_close_matches  # here, because only an error needs it

    return get_close_matches(name, list(known), 1)


def _static_assertion(finding: Finding, author: Author) -> Lesson | None:
    match = _STATIC.search(finding.head.message)
    if match is None or not finding.head.file.startswith(OURS):  # the author's own assertions speak for themselves
        return None
    cause, _, cure = match[1].partition(": ")
    # The export stands behind the function whose signature it checks.
    found = author.first(finding.places)
    line = author.line(found) if found else ""
    exported = re.search(r"DIMORPH_EXPORT(?:_CASE)?\((\w+)\)", line if "DIMORPH_EXPORT" in line else finding.text)
    # GCC names no line of a case but that of its include of case.h.
    names = [exported[1]] if exported else author.unit.kernel.functions if line.startswith("#include") else []
    place = next((at for one, at in author.functions() if one.name in names), None)
    # The type is an argument of a template of Dimorph's, in GCC's words or in clang's.
    given = re.search(r"(?:Parameter|Result|type_tag|from_any)(?:<|\(.*with T = )(.*?)(?:>'|[\];])", finding.text)
    if given is None:
        return Lesson(cause, cure, place)
    return Lesson(f"{cause}, got {_short(given[1])}", _cure_of(given[1], cure), place)


def _short(type_name: str) -> str:
    """Return the name of a type without what its author does not write."""
    text = re.sub(r"std::(?:__\w+::)?basic_string<char.*", "std::string", type_name)
    return re.sub(r"std::(?:__\w+::)?(vector|array|span)<([^,<>]+).*", r"std::\1<\2>", text)


def _cure_of(type_name: str, otherwise: str) -> str:
    match = re.search(_STD, type_name)
    return _INSTEAD.get(match[1], _ARRAY) if match else otherwise


def _standard_type(finding: Finding, author: Author) -> Lesson | None:
    if author.unit.kind != "entry" or _unknown(finding) not in ("string", "string_view", "vector", "optional", "span"):
        return None
    name = _unknown(finding)
    return Lesson(f"std::{name} is no type of an argument from Python", _INSTEAD.get(name, _ARRAY))


def _circle(finding: Finding, author: Author) -> Lesson | None:
    if "#include nested" not in finding.head.message:
        return None
    name = finding.head.file.rpartition("/")[2]
    return Lesson(f"{name} includes itself, directly or through another file", f"put #pragma once on top of {name}")


def _missing_header(finding: Finding, author: Author) -> Lesson | None:
    match = _NO_HEADER.search(finding.head.message)
    if match is None:
        return None
    name, right = next(filter(None, match.groups())), header_name(author.unit.kernel)
    if name.endswith("_config.h"):
        cure = f'the config header of this kernel is "{right}"; to share sources, declare config="{name}"'
        return Lesson(f"there is no header {name}", cure)
    cure = "name its directory in include_dirs of the kernel, or put it into the kernel's root"
    return Lesson(f"there is no header {name}", cure)


def _dispatch_unknown(finding: Finding, author: Author) -> Lesson | None:
    """Explain a DISPATCH_ of no axis, of which a compiler may report only what stands inside it."""
    kernel = author.unit.kernel
    known = [f"DISPATCH_{axis.name}" for axis in kernel.axes]
    code = author.code(author.main) if author.unit.kind == "entry" else ""
    for match in re.finditer(r"\bDISPATCH_(\w+)", code):
        if match[0] in known or author.find(rf"#\s*define\s+{match[0]}\b"):
            continue
        near = _near(match[0], known)
        cure = f"write {near[0]}" if near else f"there are: {', '.join(known) or 'none, because it has no axes'}"
        place = Place(author.main, line_of(code, match.start()))
        return Lesson(f"kernel {kernel.name} has no axis {match[1]!r}", cure, place)
    return None


def _dispatch_forgotten(finding: Finding, author: Author) -> Lesson | None:
    name = _unknown(finding)
    for axis in author.unit.kernel.axes if author.unit.kind == "entry" else ():
        if name == f"DISPATCH_{axis.name}_around_the_call" or name in axis.binds:
            binds = ", ".join(axis.binds)
            cure = f"put DISPATCH_{axis.name}(value of this call, {binds}, ...) around the DIMORPH_CALL"
            return Lesson(f"DIMORPH_CALL stands outside of DISPATCH_{axis.name}, which binds {binds}", cure)
    return None


def _call_unknown(finding: Finding, author: Author) -> Lesson | None:
    name = _unknown(finding)
    if not name.startswith("DIMORPH_PLACE_"):
        return None
    name, known = name.removeprefix("DIMORPH_PLACE_"), author.unit.kernel.functions
    cure = f"call one of functions=[{', '.join(map(repr, known))}], or add {name!r} to functions= of the kernel"
    return Lesson(f"DIMORPH_CALL({name}): the kernel declares no function {name!r}", cure)


def _call_forgotten(finding: Finding, author: Author) -> Lesson | None:
    name = _unknown(finding)
    if author.unit.kind != "entry" or name not in author.unit.kernel.functions:
        return None
    return Lesson(
        f"{name!r} is a function of the case, not of the entry", f"write DIMORPH_CALL({name})(...) to call it"
    )


def _our_header(finding: Finding, author: Author) -> Lesson | None:
    """Explain a name of Dimorph's whose header is not included."""
    name = _unknown(finding)
    declared = rf"^(?:(?:inline|constexpr|struct|class|using)\b[^;{{}}\n]*\b|#define ){name}\b"
    for path in sorted(INCLUDE.glob("dimorph/*.h")) if name else ():
        header = f"dimorph/{path.name}"
        if re.search(declared, path.read_text("utf-8"), re.MULTILINE) and not author.includes(header):
            full = name if name.startswith("DIMORPH_") else f"dimorph::{name}"
            return Lesson(f"{full} is not declared: nothing includes <{header}>", f"write #include <{header}>")
    return None


def _call_result(finding: Finding, author: Author) -> Lesson | None:
    void = re.search(r"void value not ignored|type 'void'|a void expression|\"void\"", finding.head.message)
    match = re.search(r"(DIMORPH_CALL\(\w+|DIMORPH_CALL_ON\([^(),]+, \w+)\)", finding.text)
    if not void or match is None:
        return None
    return Lesson(
        f"{match[1]}) is void, because it names no type of a result",
        f"name it: {match[1]}, int) for a result of type int",
    )


def _export_unknown(finding: Finding, author: Author) -> Lesson | None:
    match = re.search(r"DIMORPH_EXPORT\s*\((\w+)\)", finding.text)
    if match is None or _unknown(finding) != match[1]:
        return None
    name, defined = match[1], {function.name: place for function, place in author.functions()}
    if name in defined:
        cause = f"DIMORPH_EXPORT({name}) does not see the function of line {defined[name].line}"
        return Lesson(cause, "put it after the function, inside the same namespace")
    known = _near(name, defined) or list(defined)
    return Lesson(f"there is no function {name!r} to export", f"the entry defines: {', '.join(known) or 'none'}")


def _case_function(finding: Finding, author: Author) -> Lesson | None:
    match = re.search(r"DIMORPH_EXPORT_CASE\((\w+)\)", finding.text)
    if match is None or author.unit.kind != "case":
        return None
    name, defined = match[1], list(author.functions())
    mine = [(function, place) for function, place in defined if function.name == name]
    if not mine:
        near = _near(name, [function.name for function, _ in defined])
        place = next((place for function, place in defined if function.name in near), author.top())
        return Lesson(
            f"the case defines no function {name!r}, which functions= of the kernel declares"
            + (f"; it defines {near[0]!r}" if near else ""),
            f"define {name!r} in namespace DIMORPH_CASE, or name the case's function in functions=",
            place,
        )
    place = mine[0][1]
    if len(mine) > 1:
        return Lesson(f"the case defines several functions {name!r}", "give the others another name", place)
    code = author.code(place.file)
    if re.search(r"\btemplate\s*<[^;{}]*\Z", code[: mine[0][0].start]):
        cure = "make it a plain function, in which the axes are constants"
        return Lesson(f"the case's function {name!r} is a template", cure, place)
    return _outside(mine[0])


def _outside(found: tuple[Function, Place] | None) -> Lesson:
    name = f"the case's function {found[0].name!r}" if found else "the case"
    cause = f"{name} is not in namespace DIMORPH_CASE"
    return Lesson(cause, "put it into namespace DIMORPH_CASE { }", found and found[1])


def _no_parameter(finding: Finding, author: Author) -> Lesson | None:
    match = _NO_MEMBER.search(finding.head.message)
    name = next(filter(None, match.groups())) if match else ""
    for variant in author.unit.variants:
        if any(param.name == name for param in variant.params):
            return Lesson(
                f"the params struct has no member {name!r}, the parameter of variant {variant.name}",
                "derive the struct: struct Params : AdditionalParams",
            )
    return None


def _ambiguous(finding: Finding, author: Author) -> Lesson | None:
    """Explain a variant's parameter that has the name of a field of the kernel's own."""
    match = _AMBIGUOUS.search(finding.head.message)
    name = next(filter(None, match.groups()), "") if match else ""
    for variant in author.unit.variants:
        if any(param.name == name for param in variant.params):
            path = str(variant.root / variant.header)
            return Lesson(
                f"variant {variant.name}: its parameter {name!r} has the name of a field of the kernel's params struct",
                "give the parameter another name",
                author.find(rf"\bstruct\s+{variant.struct}\b") or Place(path, 1),
            )
    return None


def _variant(finding: Finding, author: Author) -> Lesson | None:
    """Explain a variant whose struct is missing, no template, or cannot be made from the params struct."""
    place = author.first(finding.places)
    line = author.line(place) if place else ""
    macros = [axis.binds[0] for axis in author.unit.kernel.axes if axis.for_cases_only]
    for variant in author.unit.variants:
        struct = variant.struct
        named = re.search(rf"\b{struct}\b", finding.head.message)
        if not named and not any(macro in line for macro in macros):
            continue
        path = str(variant.root / variant.header)
        there = author.find(rf"\b(?:struct|class)\s+{struct}\b")
        if there is None:
            others = re.findall(r"\b(?:struct|class)\s+(\w+)", author.code(path))
            return Lesson(
                f"variant {variant.name}: {variant.header} defines no struct {struct!r}; it defines "
                f"{', '.join(others) or 'none'}",
                "name one of them in Variant(struct=...), or define it",
                author.find(rf"\b(?:struct|class)\s+{(others or [struct])[0]}\b") or Place(path, 1),
            )
        before = "\n".join(author.code(there.file).split("\n")[: there.line]).rpartition(struct)[0]
        if not re.search(r"\btemplate\s*<[^;{}]*\Z", before):
            cure = f"put `template <typename Params>` before struct {struct}"
            return Lesson(f"variant {variant.name}: struct {struct} is no template", cure, there)
        if named and re.search("no matching|no instance of constructor|cannot convert", finding.head.message):
            return Lesson(
                f"variant {variant.name}: struct {struct} has no constructor that takes the params struct",
                f"define explicit {struct}(const Params& params)",
                there,
            )
    return None


def _narrowing(finding: Finding, author: Author) -> Lesson | None:
    if "narrow" not in finding.head.message:
        return None
    message = re.sub(r" \[-W.*?\]$| inside \{ \}", "", finding.head.message)
    return Lesson(
        f"{message}, which loses digits", "is it the right member? Then convert it with static_cast<...>(...)"
    )


def _no_return(finding: Finding, author: Author) -> Lesson | None:
    if "return-type" not in finding.head.message:
        return None
    return Lesson("a function with a result ends without a return", "return a value on every path")


def _format(finding: Finding, author: Author) -> Lesson | None:
    message = finding.head.message
    if not re.search(r"\[-Werror[=,](?:-W)?format", message):
        return None
    if re.search(r"'(?:const )?(?:dimorph::)?Str'", message):
        cure = "print a Str by %.*s, with static_cast<int>(text.size), text.data"
    elif re.search(r"'(?:const )?(?:dimorph::)?Size'|'int64_t'|'(?:unsigned )?long(?: long)?(?: int)?'", message):
        cure = "print a size by %lld, with static_cast<long long>(...)"
    else:
        cure = "give each % of the format one argument of its type"
    return Lesson(re.sub(r" \[-W.*?\]$", "", message), cure)


def _bound_name(finding: Finding, author: Author) -> Lesson | None:
    """Explain a name that is almost one that an axis binds, where the compiler does not propose it."""
    name = _unknown(finding)
    binds = {bind: axis for axis in author.unit.kernel.axes for bind in axis.binds}
    near = _near(name, binds) if name and "did you mean" not in finding.head.message else []
    if not near:
        return None
    return Lesson(f"the name {name!r} is not declared", f"write {near[0]}, which axis {binds[near[0]].name} binds")


Rule = Callable[[Finding, Author], "Lesson | None"]
# In the order in which mistakes cause the errors of others.
_RULES: tuple[Rule, ...] = (
    _circle,
    clashes.circle,
    _missing_header,
    _static_assertion,
    _standard_type,
    _dispatch_unknown,
    expressions.dispatch_value,
    _call_unknown,
    _dispatch_forgotten,
    _export_unknown,
    clashes.overloaded_export,
    clashes.own_name,
    _call_forgotten,
    _ambiguous,
    _variant,
    _no_parameter,
    _case_function,
    _call_result,
    _narrowing,
    _no_return,
    expressions.brackets,
    expressions.written,
    _our_header,
    _format,
    _bound_name,
)
