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


class Integer(NamedTuple):
    """An integer type of C++."""

    bits: int
    signed: bool


# Spelling in C++ -> the type, on the 64-bit systems that kernels run on.
INTEGERS = {
    **{
        f"{'' if signed else 'u'}int{bits}_t": Integer(bits, signed)
        for bits in (8, 16, 32, 64)
        for signed in (True, False)
    },
    "int": Integer(32, True),
    **dict.fromkeys(("unsigned", "unsigned int"), Integer(32, False)),
    **dict.fromkeys(("long", "long long"), Integer(64, True)),
    **dict.fromkeys(("unsigned long", "unsigned long long", "size_t"), Integer(64, False)),
    "short": Integer(16, True),
    "signed char": Integer(8, True),
    "unsigned char": Integer(8, False),
}


class Declared(NamedTuple):
    """A parameter as a definition declares it.

    Attributes:
        type: its type, without namespaces of Dimorph and the standard, `const` and `&`.
        name: its name; empty: it has none, or the type cannot be read.
        default: the C++ text of its default; empty: it has none.
        position: where that text is, or else the parameter.
    """

    type: str
    name: str
    default: str
    position: int


# Lines of the preprocessor, whose definitions are those of macros.
_DIRECTIVE = re.compile(r"^[ \t]*#(?:.*\\\n)*.*", re.MULTILINE)
_END_OF_OTHER = re.compile(r"[;{})]|^[ \t]*#[^\n]*", re.MULTILINE)
_SPECIFIERS = re.compile(r"\[\[[^]]*\]\]|\b(?:static|inline|constexpr|extern|const)\b|\b(?:::)?(?:dimorph|std)::|&")
_PARAMETER = re.compile(r"(?P<type>.*[^\w:]|.*[&*])(?P<name>[A-Za-z_]\w*)", re.DOTALL)
# Without a name behind it, a type of several words would end with the name.
_LAST_WORDS = frozenset(("int", "long", "short", "char", "double", "float", "bool", "const"))
# Patterns of defaults, which `re` compiles when there is one.
_NUMBER = r"(?P<sign>[-+]?)\s*(?P<digits>0[xX][\da-fA-F']+|[\d'.]+(?:[eE][-+]?\d+)?)(?P<suffix>[fFlLuUzZ]*)"
_TEXT = r'"(?:[^"\\\n]|\\[\\"\'nrt0])*"'
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
    return {name: _exported(text, code, found, name, place) for name, found in definitions(code, names).items()}


def _exported(text: str, code: str, defined: list[Function], name: str, place: str) -> Signature:
    found = {_signature(text, code, one, place) for one in defined}
    # Of several, as in the branches of an #if, nobody but the preprocessor knows which one is compiled.
    return found.pop() if len(found) == 1 else Signature(name)


def definitions(code: str, names: Iterable[str]) -> dict[str, list[Function]]:
    """Return the definitions of exported functions, by name: those beside a line that exports the function.

    Args:
        code: a text from `blanked`.
        names: the names of the functions.
    """
    plain = _DIRECTIVE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), code)
    defined = list(functions(plain))
    found = {}
    for name in names:
        lines = re.finditer(rf"\bDIMORPH_EXPORT\s*\(\s*{name}\s*\)", code)
        scopes = {_scope(code, line.start()) for line in lines}
        found[name] = [one for one in defined if one.name == name and _scope(plain, one.start) in scopes]
    return found


def beginnings(code: str, function: Function) -> tuple[int, int]:
    """Return where the text between a definition and what stands before it begins, and where the definition does."""
    earlier = max((match.end() for match in _END_OF_OTHER.finditer(code, 0, function.start)), default=0)
    head = code[earlier : function.start]
    return earlier, earlier + len(head) - len(head.lstrip())


def declared(text: str, code: str, function: Function) -> Iterator[Declared]:
    """Yield the parameters that a definition declares.

    Args:
        text: the text of the definition.
        code: the same from `blanked`.
        function: the definition.
    """
    opening = code.index("(", function.start) + 1
    for start, end in parts(code, opening, function.body - len(function.after) - 1):
        equals = code.find("=", start, end)
        spelled = code[start : end if equals < 0 else equals].strip()
        match = _PARAMETER.fullmatch(spelled)
        if match is None or match["name"] in _LAST_WORDS:
            yield Declared(plain_type(spelled), "", "", start)
        elif equals < 0:
            yield Declared(plain_type(match["type"]), match["name"], "", start)
        else:
            default = without_comments(text[equals + 1 : end]).strip()
            yield Declared(plain_type(match["type"]), match["name"], default, equals)


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
    known = list(declared(text, code, function))
    parameters = None
    if all(one.name for one in known):
        parameters = tuple(
            Parameter(one.name, one.type, _default(one, f"{place}:{line_of(text, one.position)}: {function.name}"))
            for one in known
        )
    earlier, begin = beginnings(code, function)
    return Signature(function.name, parameters, plain_type(code[begin : function.start]), _doc(text[earlier:begin]))


def parts(code: str, start: int, end: int) -> Iterator[tuple[int, int]]:
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


def plain_type(cpp_type: str) -> str:
    """Return a type without specifiers, references and the namespaces of Dimorph and the standard."""
    return re.sub(r"\s*([<>,*])\s*", r"\1", " ".join(_SPECIFIERS.sub(" ", cpp_type).split())).replace(",", ", ")


def _default(declared: Declared, where: str) -> str | None:
    """Return the default of a parameter as Python spells it; None: it has none."""
    given = declared.default
    if not given or declared.type == "Extra":  # the arguments of a variant have defaults of their own
        return None
    if given in _WORDS:
        return _WORDS[given]
    if declared.type.startswith("Optional<") and re.fullmatch(_NOTHING, given, re.DOTALL):
        return "None"
    if re.fullmatch(_TEXT, given):
        return repr(literal_eval(given))
    if number := re.fullmatch(_NUMBER, given):
        digits = number["digits"].replace("'", "")
        if digits[:2] in ("0x", "0X"):
            value: float = int(digits, 16)
        elif re.search(r"[.eE]", digits) or declared.type in ("float", "double"):
            value = float(digits)
        else:
            value = int(digits, 8 if digits.startswith("0") else 10)
        value = -value if number["sign"] == "-" else value
        if isinstance(value, float) and "f" in number["suffix"].lower() and declared.type != "float":
            value = c_float(value).value
        if isfinite(value) and _fits(value, declared.type):
            return repr(value)
    raise DeclarationError(
        f"{where}: parameter {declared.name!r}: expected a number, true, false, a string, or {{}} of an Optional as "
        f"default, got {given}; write it as one of these, because Python fills it in"
    )


def _fits(value: float, cpp_type: str) -> bool:
    """Return True if a parameter of a type takes the number as it is; of a type that is not known, any number."""
    if cpp_type in ("bool", "Str"):
        return False
    if cpp_type not in INTEGERS:
        return True
    bits, signed = INTEGERS[cpp_type]
    # A call passes an integer of 64 bits with a sign.
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << min(bits, 63))
    return isinstance(value, int) and low <= value < high


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
