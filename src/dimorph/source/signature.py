"""The signature of an exported function, read from its definition in the entry: the one declaration of its arguments.

Names, types and defaults of the parameters, the result and the comment above become those of the Python function.
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterable, Iterator
from ctypes import c_float
from math import isfinite
from typing import NamedTuple

from dimorph.errors import DeclarationError
from dimorph.source.cpp_functions import Function, functions
from dimorph.source.cpp_text import blanked, line_of, without_comments


class Parameter(NamedTuple):
    """A parameter of an exported function.

    Attributes:
        name: its name in C++.
        type: its type as the definition spells it, without namespaces of Dimorph, `const` and `&`.
        default: its default as Python spells it; None: it has none.
    """

    name: str
    type: str
    default: str | None = None

    @property
    def is_extra(self) -> bool:
        """True if it stands for the arguments of the variant."""
        return self.type == "Extra"

    @property
    def is_optional(self) -> bool:
        """True if it may be None."""
        return self.type.startswith("Optional<")


class Signature(NamedTuple):
    """The signature of an exported function.

    Attributes:
        name: the name of the function.
        parameters: its parameters; None where its definition cannot be read, as when a macro makes it.
        result: the type of its result.
        doc: the comment of `///` lines, or between `/**` and `*/`, above its definition; empty if there is none.
    """

    name: str
    parameters: tuple[Parameter, ...] | None = None
    result: str = ""
    doc: str = ""

    @property
    def names(self) -> str:
        """The names of the parameters in C++, comma separated; empty where there are none or they are not known."""
        return ",".join(parameter.name for parameter in self.parameters or ())

    def __str__(self) -> str:
        known = "..." if self.parameters is None else ", ".join(f"{p.type} {p.name}" for p in self.parameters)
        return f"{self.result} {self.name}({known})".lstrip()


_END_OF_OTHER = re.compile(r"[;{})]|^[ \t]*#[^\n]*", re.MULTILINE)
_SPECIFIERS = re.compile(r"\[\[[^]]*\]\]|\b(?:static|inline|constexpr|extern|const)\b|\b(?:::)?(?:dimorph|std)::|&")
_PARAMETER = re.compile(r"(?P<type>.*[^\w:]|.*[&*])(?P<name>[A-Za-z_]\w*)", re.DOTALL)
# Without a name behind it, a type of several words would end with the name.
_LAST_WORDS = frozenset(("int", "long", "short", "char", "double", "float", "bool", "const"))
# Patterns of defaults, which `re` compiles when there is one.
_NUMBER = r"(?P<sign>[-+]?)\s*(?P<digits>0[xX][\da-fA-F']+|[\d'.]+(?:[eE][-+]?\d+)?)(?P<suffix>[fFlLuUzZ]*)"
_TEXT = r'"(?:[^"\\\n]|\\[\\"\'nrt0])*"'
# Integer types and their bits.
_BITS = {
    **{f"{sign}int{bits}_t": bits for sign in ("", "u") for bits in (8, 16, 32)},
    **{"int": 32, "short": 16, "signed char": 8, "unsigned": 32, "unsigned int": 32, "unsigned char": 8},
    **dict.fromkeys(("int64_t", "long", "long long"), 64),
    # A call passes an integer of 64 bits with a sign.
    **dict.fromkeys(("uint64_t", "size_t", "unsigned long", "unsigned long long"), 63),
}
_WORDS = {"true": "True", "false": "False"}
_NOTHING = r"\{\s*\}|(?:std::)?nullopt|(?:dimorph::)?Optional<.*>(?:\(\)|\{\})"


def signatures(text: str, names: Iterable[str], place: str) -> dict[str, Signature]:
    """Read the signatures of some functions that a C++ text defines.

    Args:
        text: the text.
        names: the names of the functions.
        place: the path of the text, for messages.

    Raises:
        DeclarationError: a default is not one that Python can have.
    """
    code = blanked(text)
    return {name: _exported(text, code, name, place) for name in names}


def _exported(text: str, code: str, name: str, place: str) -> Signature:
    found = {_signature(text, code, one, place) for one in definitions(code, code, name)}
    # Of several, as in the branches of an #if, nobody but the preprocessor knows which one is compiled.
    return found.pop() if len(found) == 1 else Signature(name)


def definitions(code: str, exporting: str, name: str) -> list[Function]:
    """Return the definitions of an exported function: those beside a line that exports it.

    Args:
        code: a text from `blanked`.
        exporting: the same, where that has lost the lines that export.
        name: the name of the function.
    """
    lines = re.finditer(rf"\bDIMORPH_EXPORT\s*\(\s*{name}\s*\)", exporting)
    scopes = {_scope(exporting, line.start()) for line in lines}
    return [one for one in functions(code) if one.name == name and _scope(code, one.start) in scopes]


def _scope(code: str, position: int) -> tuple[int, ...]:
    """Return where the braces are opened that enclose a position."""
    opened: list[int] = []
    for match in re.compile(r"[{}]").finditer(code, 0, position):
        if match[0] == "{":
            opened.append(match.start())
        elif opened:
            opened.pop()
    return tuple(opened)


def _signature(text: str, code: str, function: Function, place: str) -> Signature:
    earlier = max((match.end() for match in _END_OF_OTHER.finditer(code, 0, function.start)), default=0)
    head = code[earlier : function.start]
    begin = earlier + len(head) - len(head.lstrip())
    parameters: list[Parameter] | None = []
    opening = code.index("(", function.start) + 1
    for start, end in _parts(code, opening, function.body - len(function.after) - 1):
        equals = code.find("=", start, end)
        declared = _PARAMETER.fullmatch(code[start : end if equals < 0 else equals].strip())
        if parameters is None or declared is None or declared["name"] in _LAST_WORDS:
            parameters = None
            break
        parameter = Parameter(declared["name"], _plain(declared["type"]))
        if equals >= 0:
            given = without_comments(text[equals + 1 : end]).strip()
            where = f"{place}:{line_of(text, equals)}: {function.name}: parameter {parameter.name!r}"
            if not parameter.is_extra:  # the arguments of a variant have defaults of their own
                parameter = Parameter(parameter.name, parameter.type, _default(given, parameter, where))
        parameters.append(parameter)
    known = None if parameters is None else tuple(parameters)
    return Signature(function.name, known, _plain(head), _doc(text[earlier:begin]))


def _parts(code: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the parts of a list between the commas outside of brackets begin and end."""
    if not code[start:end].strip() or code[start:end].strip() == "void":
        return
    depth = 0
    for at in range(start, end):
        depth += (code[at] in "<({[") - (code[at] in ">)}]")
        if code[at] == "," and depth == 0:
            yield start, at
            start = at + 1
    yield start, end


def _plain(cpp_type: str) -> str:
    return re.sub(r"\s*([<>,*])\s*", r"\1", " ".join(_SPECIFIERS.sub(" ", cpp_type).split())).replace(",", ", ")


def _default(given: str, parameter: Parameter, where: str) -> str:
    if given in _WORDS:
        return _WORDS[given]
    if parameter.is_optional and re.fullmatch(_NOTHING, given, re.DOTALL):
        return "None"
    if re.fullmatch(_TEXT, given):
        return repr(literal_eval(given))
    if number := re.fullmatch(_NUMBER, given):
        digits = number["digits"].replace("'", "")
        if digits[:2] in ("0x", "0X"):
            value: float = int(digits, 16)
        elif re.search(r"[.eE]", digits) or parameter.type in ("float", "double"):
            value = float(digits)
        else:
            value = int(digits, 8 if digits.startswith("0") else 10)
        value = -value if number["sign"] == "-" else value
        if isinstance(value, float) and "f" in number["suffix"].lower() and parameter.type != "float":
            value = c_float(value).value
        if isfinite(value) and _fits(value, parameter.type):
            return repr(value)
    raise DeclarationError(
        f"{where}: expected a number, true, false, a string, or {{}} of an Optional as default, got {given}; "
        f"write it as one of these, because Python fills it in"
    )


def _fits(value: float, cpp_type: str) -> bool:
    """Return True if a parameter of a type takes the number as it is; of a type that is not known, any number."""
    if cpp_type in ("bool", "Str"):
        return False
    if cpp_type not in _BITS:
        return True
    bits, low = _BITS[cpp_type], 0 if cpp_type.startswith(("u", "size_t")) else -(1 << _BITS[cpp_type] - 1)
    return isinstance(value, int) and low <= value < low + (1 << bits)


def _doc(before: str) -> str:
    """Return the text of the comment that ends a piece of C++ text; empty if it is not one for documents."""
    before = before.rstrip()
    if before.endswith("*/"):
        lines = before[before.rfind("/*") :].removesuffix("*/").split("\n")
        if not lines[0].startswith("/**"):
            return ""
        return _dedented([lines[0].removeprefix("/**"), *(re.sub(r"^\s*\*(?!\*)", "", line) for line in lines[1:])])
    taken: list[str] = []
    for line in reversed(before.split("\n")):
        if not line.strip().startswith("///"):
            break
        taken.insert(0, line.strip().removeprefix("///"))
    return _dedented(taken)


def _dedented(lines: list[str]) -> str:
    text = "\n".join(line.removeprefix(" ").rstrip() for line in lines).strip("\n")
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
