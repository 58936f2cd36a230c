"""The Python functions of a module: the parameters of the C++ function, and the conversions that a call may need."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from keyword import iskeyword
from sys import modules
from types import CodeType
from typing import Any, NamedTuple, Protocol

from dimorph.declare.variant import Param
from dimorph.source.signature import INTEGERS, Signature


class Array(Protocol):
    """An array that speaks DLPack: NumPy's, torch's, CuPy's, JAX's and others."""

    def __dlpack__(self, *args: Any, **named: Any) -> Any:
        """Export the array; see the protocol DLPack."""


class Function(Protocol):
    """An exported function of a loaded kernel; see `Module`."""

    native: Callable[..., Any]

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call the function."""


class Argument(NamedTuple):
    """An argument of a function in Python.

    Attributes:
        name: its name; one that is a keyword of Python ends with `_`.
        type: its type, as Python spells it.
        default: its default, as Python spells it; None: it has none.
    """

    name: str
    type: str
    default: str | None = None

    def __str__(self) -> str:
        return self.name if self.default is None else f"{self.name}={self.default}"


class Arguments(NamedTuple):
    """The arguments of a function in Python.

    Attributes:
        named: those with names, which calls give by position or by name.
        rest: the name for any number of others; empty: there are no others.
    """

    named: tuple[Argument, ...]
    rest: str = ""


_TYPES = {
    **dict.fromkeys(INTEGERS, "int"),
    **{"Tensor": "Array", "ConstTensor": "Array", "bool": "bool", "float": "float", "double": "float"},
    **dict.fromkeys(("TensorList", "ConstTensorList"), "Sequence[Array]"),
    **{"Str": "str", "char*": "str", "char *": "str", "void": "None"},
}
_SCALARS = {"int32": "int", "int64": "int", "bool": "bool"}


def python_type(cpp_type: str) -> str:
    """Return the type in Python of a parameter or a result of an exported function; `Any` where it is not known."""
    if cpp_type.startswith("Optional<"):
        inner = python_type(cpp_type[len("Optional<") : -1])
        return inner if inner == "Any" else f"{inner} | None"
    return "Sequence[Any]" if cpp_type.startswith("Results<") else _TYPES.get(cpp_type, "Any")


def arguments(signature: Signature, params: Sequence[Param] | None) -> Arguments:
    """Return the arguments that a function has in Python.

    Args:
        signature: the signature of the function.
        params: the parameters of the variant, which have names where that leaves no doubt; None: there is no single
            variant.
    """
    if signature.parameters is None:
        return Arguments((), "args")
    own = [Argument(_name(p.name), python_type(p.type), p.default) for p in signature.parameters if not p.is_extra]
    optional = [p.is_optional for p in signature.parameters if not p.is_extra]
    rest = next((_name(p.name) for p in signature.parameters if p.is_extra), "")
    if not rest or params is None:
        return Arguments(_with_none(own, optional), rest)
    all_ = [*own, *(Argument(_name(param.name), _param_type(param)) for param in params)]
    together = _with_none(all_, [*optional, *(param.optional for param in params)])
    has_default = [argument.default is not None for argument in together]
    if len({argument.name for argument in together}) < len(together) or has_default != sorted(has_default):
        return Arguments(_with_none(own, optional), rest)
    return Arguments(together)


def _name(name: str) -> str:
    return f"{name}_" if iskeyword(name) else name


def _param_type(param: Param) -> str:
    if param.is_tensor:
        return "Array | None" if param.optional else "Array"
    return _SCALARS.get(param.dtype, "float")


def _with_none(given: Iterable[Argument], optional: Sequence[bool]) -> tuple[Argument, ...]:
    """Return arguments such that the optional ones at the end may be left out."""
    made: list[Argument] = []
    for argument, may_be_none in zip(reversed(list(given)), reversed(optional), strict=True):
        at_end = all(other.default is not None for other in made)
        none = may_be_none and at_end and argument.default is None
        made.append(Argument(argument.name, argument.type, "None") if none else argument)
    return tuple(reversed(made))


# Runs in every call. A tuple of the arguments is made anyhow, because the native function is no function of Python; to
# make it here saves 15 ns, and global variables instead of those of a closure save 12 ns.
_CALL = """
def {name}({parameters}):
    try:
        return dimorph_native(*{passed})
    except BufferError:
        return dimorph_again({passed})
    except RuntimeError:
        dimorph_refuse({passed})
        raise
"""
_CALL_ON_STREAM = _CALL.replace(
    "    try:\n",
    """    if stream is not None or "cupy" in dimorph_modules:
        return dimorph_on_stream({passed}, stream)
    try:
""",
)


def make(
    signature: Signature,
    arguments: Arguments,
    native: Callable[..., Any],
    again: Callable[[tuple[Any, ...]], Any],
    refuse: Callable[[tuple[Any, ...]], None],
    on_stream: Callable[[tuple[Any, ...], Any], Any] | None,
) -> Any:
    """Make a Python function with the parameters of a C++ function.

    Args:
        signature: the signature of the C++ function.
        arguments: the arguments of the Python function.
        native: the function that it calls.
        again: converts the arguments and calls, where an array is not one that tvm-ffi takes.
        refuse: names the argument at fault after a RuntimeError, if there is one.
        on_stream: calls on a stream; None: the function takes none.

    Raises:
        ValueError, SyntaxError: a name or a default is none.
    """
    _check(arguments)
    parameters = [*map(str, arguments.named), *([f"*{arguments.rest}"] if arguments.rest else [])]
    if on_stream:
        parameters += [*([] if arguments.rest else ["*"]), "stream=None"]
    names = "".join(f"{argument.name}, " for argument in arguments.named)
    passed = f"({names})"
    if arguments.rest:
        passed = f"({passed} + {arguments.rest})" if names else arguments.rest
    text = _CALL_ON_STREAM if on_stream else _CALL
    # The types too, for typing.get_type_hints.
    variables: dict[str, Any] = {"__name__": __name__, "Any": Any, "Array": Array, "Sequence": Sequence}
    variables |= {"dimorph_native": native, "dimorph_again": again, "dimorph_refuse": refuse}
    variables |= {"dimorph_on_stream": on_stream, "dimorph_modules": modules}
    exec(_compiled(text.format(name=signature.name, parameters=", ".join(parameters), passed=passed)), variables)
    function = variables[signature.name]
    function.__name__ = function.__qualname__ = signature.name
    function.__doc__ = f"{signature.doc}\n\nIn C++: {signature}".strip()
    function.__annotations__ = {argument.name: argument.type for argument in arguments.named}
    if signature.result:
        function.__annotations__["return"] = python_type(signature.result)
    return function


def bind(function: Any, native: Callable[..., Any]) -> None:
    """Let a function that `make` made call another native function."""
    function.__globals__["dimorph_native"] = native


def _check(arguments: Arguments) -> None:
    """Refuse what must not become a part of a function's text.

    Raises:
        ValueError, SyntaxError: a name is not an identifier, or a default is not a literal.
    """
    for name in [*(argument.name for argument in arguments.named), arguments.rest or "_"]:
        if not name.isidentifier():
            raise ValueError(f"argument: expected an identifier, got {name!r}")
    for argument in arguments.named:
        if argument.default is not None:
            literal_eval(argument.default)


@lru_cache(maxsize=1024)
def _compiled(text: str) -> CodeType:
    """Compile the definition of a function, which takes about 0.1 ms."""
    return compile(text, "<dimorph>", "exec")
