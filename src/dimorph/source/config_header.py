"""The config header of a kernel: a pure function of its declaration and the values of its axes.

An axis with one value becomes a constant, and its DISPATCH_ macro checks the value of the call and runs the body. An
axis with several values becomes a table, and its DISPATCH_ macro is a switch over that table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dimorph.declare.axis import Axis, Value
from dimorph.declare.declaration import Declaration
from dimorph.declare.dtypes import SCALARS, TENSORS
from dimorph.declare.instantiations import InstantiationSet, Specialization
from dimorph.declare.variant import Param, Variant, parameter_names
from dimorph.source.cpp_text import macro


def header_name(kernel: Declaration) -> str:
    """Return the file name of a kernel's config header, as its sources include it."""
    return kernel.config or f"{kernel.name}_config.h"


def config_header(instantiations: InstantiationSet, kind: str) -> str:
    """Return the text of the config header for a set of specializations.

    For a single specialization this is the JIT form, which is independent of the other declared values. Every case is
    compiled with it, JIT and ahead of time.

    Args:
        instantiations: the set.
        kind: what is compiled, whose own header it includes: `entry`, `case` or `device`.
    """
    kernel = instantiations.kernel
    single = next(iter(instantiations)) if instantiations.specialized else None
    lines = [
        f"// {header_name(kernel)}: generated from the declaration of kernel {kernel.name}.",
        f"// {_summary(instantiations)}",
        "#pragma once",
        f"#include <dimorph/{kind}.h>",
        "#include <dimorph/dtype.h>",
    ]
    left = single.values if single else tuple(v[0] if len(v) == 1 else None for v in instantiations.values)
    of_variants: list[str] = []
    for axis, value in zip(kernel.axes, left, strict=True):
        includes = [f'#include "{header}"' for header in axis.includes]
        # Behind all constants, which the structs of variants may use.
        (of_variants if axis.for_cases_only else lines).extend(includes)
        if value is not None and (single or not axis.for_cases_only):
            lines += axis.constant(value)
    lines += of_variants
    if single:
        lines.append(f"#define DIMORPH_CASE {single.namespace}")
        if kind != "entry":  # where the namespace could have the name of the entry's function
            lines += _additional(single)
    lines += ["", "#if defined(DIMORPH_HOST)"]
    for (axis, values), value in zip(instantiations.pairs(), left, strict=True):
        if value is not None:
            lines += _checked_body(axis, value)
        elif values:
            lines += _table(axis, values)
    lines += _slots(instantiations)
    lines += ["#endif  // DIMORPH_HOST", ""]
    return "\n".join(lines)


def _summary(instantiations: InstantiationSet) -> str:
    parts = []
    for axis, values in instantiations.pairs():
        if len(values) == 1:
            parts.append(f"{axis.name}={axis.text(values[0])}")
        elif values:
            parts.append(f"{axis.name} in {axis.texts(values)}")
        else:
            parts.append(f"{axis.name} chosen for each case")
    return ", ".join(parts) or "no axes"


def _numbered(name: str, axis: Axis) -> list[str]:
    """Return a macro parameter for each name that the axis binds, numbered where there are several."""
    count = len(axis.binds)
    return [name] if count == 1 else [f"{name}{i + 1}" for i in range(count)]


def _checked_body(axis: Axis, value: Value) -> list[str]:
    """Return the DISPATCH_ macro of an axis with one value: it refuses a call with another one, then runs the body."""
    exprs = _numbered("expr", axis)
    return macro(
        f"DISPATCH_{axis.name}({', '.join([*exprs, *_numbered('const_expr', axis)])}, ...)",
        [
            "do {",
            f'  ::dimorph::detail::expect("{axis.name}", {axis.given(exprs)}, {axis.compiled(value)});',
            f"  [[maybe_unused]] constexpr int {_witness(axis)} = 0;",
            "  __VA_ARGS__;",
            "} while (0)",
        ],
    )


def _witness(axis: Axis) -> str:
    """Return the name of a constant that DISPATCH_ declares and DIMORPH_CALL reads.

    A forgotten DISPATCH_ is then a compile error that names the axis.
    """
    return f"DISPATCH_{axis.name}_around_the_call"


def _table(axis: Axis, values: Sequence[Value]) -> list[str]:
    """Return the table of an axis with several values, and the DISPATCH_ macro that switches over it."""
    exprs, consts, case_vars = (_numbered(name, axis) for name in ("expr", "const_expr", "case_var"))
    cases = f"_DISPATCH_CASES_{axis.name}"
    rows = [f"{axis.row(index, value)}, {', '.join(case_vars)}, __VA_ARGS__)" for index, value in enumerate(values)]
    return [
        *macro(f"{cases}({', '.join(case_vars)}, ...)", rows),
        *macro(
            f"DISPATCH_{axis.name}({', '.join([*exprs, *consts])}, ...)",
            [f'{axis.switch}("{axis.name}", {axis.switched(exprs)}, {cases}({", ".join(consts)}, __VA_ARGS__))'],
        ),
    ]


def _slots(instantiations: InstantiationSet) -> list[str]:
    """Return the macros by which an entry finds its cases in the function table.

    DIMORPH_SLOT is the slot of the values bound around a call, DIMORPH_PLACE_<function> the first slot of a function.
    An axis with one value adds nothing to the slot, but its DISPATCH_ must enclose the call, so that the value is
    checked. By the texts in dimorph_axes, DIMORPH_CALL_ON finds the slot of the case that made a handle.
    """
    kernel = instantiations.kernel
    if not kernel.functions:
        return []
    witnesses = [_witness(axis) for axis, values in instantiations.pairs() if len(values) == 1 and axis.checks_calls]
    slot = "0"
    for axis, values in instantiations.dispatched():
        index = axis.index(values)
        slot = index if slot == "0" else f"({slot} * {len(values)} + {index})"
    return [
        "#if defined(DIMORPH_ENTRY)",
        *(line for axis, values in instantiations.dispatched() for line in axis.index_function(values)),
        f"#define DIMORPH_SLOT {' + '.join([slot, *witnesses])}",
        f"#define DIMORPH_SLOTS {instantiations.slots}",
        f"inline constexpr const char* dimorph_axes[] = {{{', '.join(_axis_texts(instantiations))}}};",
        *(
            f"#define DIMORPH_PLACE_{function} {number * instantiations.slots}"
            for number, function in enumerate(kernel.functions)
        ),
        *(line for axis, values in instantiations.pairs() if len(kernel.functions) > 1 for line in _any(axis, values)),
        "#endif",
    ]


def _axis_texts(instantiations: InstantiationSet) -> Iterator[str]:
    """Yield C++ texts: the kernel, then each axis and its values with a null pointer behind them, then another one."""
    yield f'"{instantiations.kernel.name}"'
    for axis, values in instantiations.pairs():
        if values:
            yield from (f'"{text}"' for text in (axis.name, *map(axis.text, values)))
            yield "nullptr"
    yield "nullptr"


def _any(axis: Axis, values: Sequence[Value]) -> list[str]:
    """Return the macro for calls of a function that does not depend on an axis: it binds the first value."""
    if axis.choose:
        return []
    consts = ", ".join(_numbered("const_expr", axis))
    given = ", ".join(axis.exprs(values[0]))
    return macro(f"ANY_{axis.name}({consts}, ...)", [f"DISPATCH_{axis.name}({given}, {consts}, __VA_ARGS__)"])


def _variant_params(single: Specialization) -> tuple[Param, ...]:
    """Return the parameters of the variant, each with its dtype.

    A tensor may name a dtype axis, whose value it gets; a scalar that names no dtype gets that of the dtype axes.
    """
    values = {axis.name: value for axis, value in single.pairs()}
    dtypes = {value for axis, value in single.pairs() if axis.kind == "dtype"}
    scalar = "float64" if dtypes == {"float64"} else "float32"
    params = next((value.params for value in single.values if isinstance(value, Variant)), ())
    return tuple(
        replace(param, dtype=values.get(param.dtype, param.dtype) if param.is_tensor else param.dtype or scalar)
        for param in params
    )


def _additional(single: Specialization) -> list[str]:
    """Return the struct of the variant's parameters: its fields, and the function by which the host sets them."""
    params = _variant_params(single)
    own = any(getattr(axis, "own_sizes", ()) for axis in single.kernel.axes)
    shapes, arguments, statements = [], [], []
    for p in params:
        if p.is_tensor:
            elements = f"::dimorph::Elements<{TENSORS[p.dtype]}>"
            if p.sizes and not own:
                shapes += _shape(p, single)
                elements = f"::dimorph::Sized<{TENSORS[p.dtype]}, ::dimorph_shapes::{p.name}>"
            arguments.append(f"::dimorph::Optional<{elements}> {p.name}" if p.optional else f"{elements} {p.name}")
            statements.append(f'    dimorph_to.set(&AdditionalParams::{p.name}, {p.name}, "{p.name}", "{p.shape}");')
        else:
            arguments.append(f"{SCALARS[p.dtype]} {p.name}")
            statements.append(f"    dimorph_to.params.{p.name} = {p.name};")
    return [
        *shapes,
        "namespace DIMORPH_CASE {",
        "struct AdditionalParams {",
        *(f"  {param.field()}" for param in params),
        "#if defined(DIMORPH_HOST)",
        f"  static constexpr bool dimorph_own_sizes = {str(own and any(p.sizes for p in params)).lower()};",
        "  template <typename Params>",
        "  static constexpr bool dimorph_own =",
        *(f"      __is_same(decltype(&Params::{p.name}), {p.cpp_type()} AdditionalParams::*) &&" for p in params),
        "      true;",
        "  template <typename To>",
        f"  static void dimorph_set({', '.join(['[[maybe_unused]] To& dimorph_to', *arguments])}) {{",
        *statements,
        "  }",
        "#endif",
        "};",
        "}  // namespace DIMORPH_CASE",
        f'#define DIMORPH_ADDITIONAL_NAMES "{parameter_names(params)}"',
    ]


def _shape(param: Param, single: Specialization) -> list[str]:
    """Return the type that tells the headers the shape of a variant's tensor, as declared and in numbers."""
    known = {
        name: size
        for axis, value in single.pairs()
        for name, size in zip(axis.size_names, axis.sizes(value), strict=True)
    }
    sizes = ", ".join(size if size.isdigit() else str(known[size]) for size in param.sizes)
    return [
        f"namespace dimorph_shapes {{ struct {param.name} {{",
        f'  static constexpr const char* text = "{param.shape}";',
        f"  static constexpr int64_t sizes[] = {{{sizes}}};",
        "}; }",
    ]
