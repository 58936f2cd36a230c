"""The config header, a pure function of the declaration and the values left.

One rule for each axis: with one value left it is a constant, and its DISPATCH_ macro is its body behind a check;
with several it is a table, and its macro is a switch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dimorph.declare.axes import Axis, Value
from dimorph.declare.variant import SCALARS, TENSORS, Param, Variant, parameter_names
from dimorph.kernel import InstantiationSet, Kernel


def header_name(kernel: Kernel) -> str:
    """What a kernel's sources include."""
    return f"{kernel.name}_config.h"


def config_header(instantiations: InstantiationSet) -> str:
    """The text of `<kernel>_config.h` for a set of specializations.

    For a single specialization this is the JIT form, which never mentions the other declared values: it is what
    every case is compiled with, in both modes.
    """
    kernel = instantiations.kernel
    single = next(iter(instantiations)) if instantiations.specialized else None
    lines = [
        f"// {header_name(kernel)}: generated from the declaration of kernel {kernel.name}.",
        f"// {_summary(instantiations)}",
        "#pragma once",
        "#include <dimorph/dtype.h>",
    ]
    left = single.values if single else tuple(v[0] if len(v) == 1 else None for v in instantiations.values)
    for axis, value in zip(kernel.axes, left, strict=True):
        if axis.kind == "enum":
            lines.append(f'#include "{axis.header}"')
        if value is not None and (single or axis.kind != "variant"):
            lines += _constant(axis, value)
    if single:
        lines.append(f"#define DIMORPH_CASE {single.namespace}")
        lines += _additional(kernel, single.values)
    lines += ["", "#if defined(DIMORPH_HOST)"]
    for axis, values, value in zip(kernel.axes, instantiations.values, left, strict=True):
        if value is not None:
            lines += _checked_body(axis, value)
        elif values:
            lines += _table(axis, values)
    if single:
        lines += _additional_host(kernel, single.values)
    lines += _slots(instantiations)
    lines += ["#endif  // DIMORPH_HOST", ""]
    return "\n".join(lines)


def without_comments(text: str) -> str:
    """C++ text without comments and without blank lines, as keys see it."""
    stripped = _TOKENS.sub(lambda m: m.group(0) if m.group(0)[0] in "\"'" else " ", text)
    return "\n".join(line.rstrip() for line in stripped.splitlines() if line.strip())


# Literals are matched first, so that a comment mark inside one is left alone.
_TOKENS = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/', re.DOTALL)


def _summary(instantiations: InstantiationSet) -> str:
    parts = []
    for axis, values in zip(instantiations.kernel.axes, instantiations.values, strict=True):
        if len(values) == 1:
            parts.append(f"{axis.name}={axis.text(values[0])}")
        elif values:
            parts.append(f"{axis.name} in {axis.texts(values)}")
        else:
            parts.append(f"{axis.name} chosen for each case")
    return ", ".join(parts) or "no axes"


def _constant(axis: Axis, value: Value) -> list[str]:
    name = axis.binds[0]
    if axis.kind == "int":
        return [f"constexpr int {name} = {value};"]
    if axis.kind == "flag":
        return [f"constexpr bool {name} = {axis.text(value)};"]
    if axis.kind == "dtype":
        return [f"using {name} = {TENSORS[value]};"]
    if axis.kind == "enum":
        return [f"constexpr {axis.cpp_type} {name} = {axis.cpp_type}::{value};"]
    if axis.kind == "tuple":
        return [f"constexpr int {bind} = {part};" for bind, part in zip(axis.binds, value, strict=True)]
    lines = [f'#include "{header}"' for header in dict.fromkeys(v.header for v in value.structs())]
    if value.parts:
        parts = ", ".join(f"{part.struct}<ParamsT>" for part in value.parts)
        lines += ["template <typename ParamsT>", f"using {value.name} = {value.struct}<ParamsT, {parts}>;"]
    macro = value.name if value.parts else value.struct
    guarded = ["#if !defined(DIMORPH_ENTRY)  // a variant is the case's business", *lines, "#endif"]
    return [*guarded, f"#define {name} {macro}"]


def _checked_body(axis: Axis, value: Value) -> list[str]:
    """The pass-through macro. The check refuses to compute with a constant that is not the call's."""
    expr, given, compiled = ["expr"], "expr", axis.binds[0]
    if axis.kind == "dtype":
        compiled = f"::dimorph::data_type<{axis.binds[0]}>()"
    elif axis.kind == "enum":
        given, compiled = "static_cast<long long>(expr)", f"static_cast<long long>({compiled})"
    elif axis.kind == "variant":
        compiled = f'"{value.name}"'
    elif axis.kind == "tuple":
        expr = [f"expr{i + 1}" for i in range(len(axis.binds))]
        given = f"::dimorph::detail::tuple({', '.join(expr)})"
        compiled = f"::dimorph::detail::tuple({', '.join(axis.binds)})"
    consts = ["const_expr"] if len(expr) == 1 else [f"const_expr{i + 1}" for i in range(len(expr))]
    return _macro(
        f"DISPATCH_{axis.name}({', '.join([*expr, *consts])}, ...)",
        [
            "do {",
            f'  ::dimorph::detail::expect("{axis.name}", {given}, {compiled});',
            f"  [[maybe_unused]] constexpr int {_checked(axis)} = 0;",
            "  __VA_ARGS__;",
            "} while (0)",
        ],
    )


def _checked(axis: Axis) -> str:
    """What a call finds around it when the axis was checked. Its name is what a compiler says where it was not."""
    return f"DISPATCH_{axis.name}_around_the_call"


def _table(axis: Axis, values: Sequence[Value]) -> list[str]:
    several = axis.kind == "tuple"
    count = len(axis.binds)
    case_vars = [f"case_var{i + 1}" for i in range(count)] if several else ["case_var"]
    consts = [f"const_expr{i + 1}" for i in range(count)] if several else ["const_expr"]
    expr = [f"expr{i + 1}" for i in range(count)] if several else ["expr"]
    tail = f"{', '.join(case_vars)}, __VA_ARGS__)"
    rows = [_row(axis, index, value, tail) for index, value in enumerate(values)]
    cases = f"_DISPATCH_CASES_{axis.name}"
    lines = _macro(f"{cases}({', '.join(case_vars)}, ...)", rows)
    switch = {
        "dtype": "_DISPATCH_TYPE_SWITCH",
        "variant": "_DISPATCH_CHAIN",
        "tuple": "_DISPATCH_CHAIN",
    }.get(axis.kind, "_DISPATCH_SWITCH")
    given = f"::dimorph::detail::tuple({', '.join(expr)})" if several else "expr"
    if axis.kind == "variant":
        given = "::dimorph::Str(expr)"
    if axis.kind == "flag":
        given = "static_cast<int>(expr)"
    lines += _macro(
        f"DISPATCH_{axis.name}({', '.join([*expr, *consts])}, ...)",
        [f'{switch}("{axis.name}", {given}, {cases}({", ".join(consts)}, __VA_ARGS__))'],
    )
    return lines


def _row(axis: Axis, index: int, value: Value, tail: str) -> str:
    if axis.kind == "dtype":
        return f"_DISPATCH_TYPE_CASE({TENSORS[value]}, {tail}"
    if axis.kind == "tuple":
        return f"_DISPATCH_CASE_{len(value)}({', '.join(map(str, value))}, {tail}"
    if axis.kind == "variant":
        return f'_DISPATCH_NAME_CASE("{value.name}", {index}, {tail}'
    text = f"{axis.cpp_type}::{value}" if axis.kind == "enum" else axis.text(value)
    return f"_DISPATCH_CASE({text}, {tail}"


def _slots(instantiations: InstantiationSet) -> list[str]:
    """Where an entry finds its cases: the slot of the values bound around a call, and where each function's begin.

    Values that are the only ones add nothing to it, but what stands around the call must have checked them: variants
    apart, whose parameters differ, and axes that are chosen.
    """
    kernel = instantiations.kernel
    if not kernel.functions:
        return []
    checked = [
        _checked(axis)
        for axis, values in zip(kernel.axes, instantiations.values, strict=True)
        if len(values) == 1 and axis.kind != "variant" and axis.choose is None
    ]
    slot = "0"
    for axis, values in instantiations.dispatched():
        index = _index(axis, values)
        slot = index if slot == "0" else f"({slot} * {len(values)} + {index})"
    return [
        "#if defined(DIMORPH_ENTRY)",
        *(line for axis, values in instantiations.dispatched() for line in _index_function(axis, values)),
        f"#define DIMORPH_SLOT {' + '.join([slot, *checked])}",
        *(
            f"#define DIMORPH_PLACE_{function} {number * instantiations.slots}"
            for number, function in enumerate(kernel.functions)
        ),
        "#endif",
    ]


def _index(axis: Axis, values: Sequence[Value]) -> str:
    name = axis.binds[0]
    if axis.kind == "dtype":
        return f"::dimorph::detail::index_of_type<{', '.join([name, *(TENSORS[v] for v in values)])}>()"
    if axis.kind == "tuple":
        rows = [f"::dimorph::detail::tuple({', '.join(map(str, v))})" for v in (axis.binds, *values)]
        return f"::dimorph::detail::index_of({', '.join(rows)})"
    return name if axis.kind == "variant" else f"dimorph_index_{axis.name}({name})"


def _index_function(axis: Axis, values: Sequence[Value]) -> list[str]:
    """A switch, because an axis may have hundreds of values and each is looked up once for each."""
    if axis.kind not in ("int", "flag", "enum"):
        return []
    cpp_type = {"int": "int", "flag": "bool"}.get(axis.kind, axis.cpp_type)
    texts = (f"{axis.cpp_type}::{v}" if axis.kind == "enum" else axis.text(v) for v in values)
    return [
        f"constexpr long long dimorph_index_{axis.name}({cpp_type} value) {{",
        f"  switch ({'static_cast<int>(value)' if axis.kind == 'flag' else 'value'}) {{",
        *(f"    case {text}: return {index};" for index, text in enumerate(texts)),
        "    default: return -1;",
        "  }",
        "}",
    ]


def _variant_params(kernel: Kernel, values: Sequence[Value]) -> tuple[Param, ...]:
    for value in values:
        if isinstance(value, Variant):
            return value.params
    return ()


def _additional(kernel: Kernel, values: Sequence[Value]) -> list[str]:
    """The device-safe part of a variant's parameters: fields of the params struct."""
    fields = [
        f"const {TENSORS[p.dtype]}* {p.name};" if p.is_tensor else f"{SCALARS[p.dtype]} {p.name};"
        for p in _variant_params(kernel, values)
    ]
    return [f"#define ADDITIONAL_PARAMS_DECL {' '.join(fields)}".rstrip()]


def _additional_host(kernel: Kernel, values: Sequence[Value]) -> list[str]:
    """The host part: the arguments that carry them, and how one gets into the other."""
    params = _variant_params(kernel, values)
    arguments, setters = [], []
    for p in params:
        if p.is_tensor:
            elements = f"::dimorph::Elements<{TENSORS[p.dtype]}>"
            arguments.append(f"::dimorph::Optional<{elements}> {p.name}" if p.optional else f"{elements} {p.name}")
            setters.append(
                f"params.{p.name} = {p.name} ? {p.name}->data : nullptr;"
                if p.optional
                else f"params.{p.name} = {p.name}.data;"
            )
        else:
            arguments.append(f"{SCALARS[p.dtype]} {p.name}")
            setters.append(f"params.{p.name} = {p.name};")
    return [
        f"#define ADDITIONAL_FUNC_PARAMS {''.join(f', {a}' for a in arguments)}".rstrip(),
        f"#define ADDITIONAL_PARAMS_SETTER {' '.join(setters)}".rstrip(),
        f'#define DIMORPH_ADDITIONAL_NAMES "{parameter_names(params)}"',
    ]


def _macro(head: str, body: Sequence[str]) -> list[str]:
    """A macro over several lines, its backslashes in one column."""
    lines = [f"#define {head}", *(f"  {line}" for line in body)]
    width = max(len(line) for line in lines[:-1])
    return [*(f"{line:<{width}} \\" for line in lines[:-1]), lines[-1]]
