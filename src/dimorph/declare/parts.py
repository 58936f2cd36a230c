"""The C++ text that makes a variant a part of a composition, in which its parameters may have other names."""

from __future__ import annotations

from dimorph.declare.variant import Variant


def part(variant: Variant, index: int) -> str:
    """Return the type that stands for a part among the template arguments of a composition."""
    own = variant.parts[index]
    if not variant.renamed(index):
        return f"{own.struct}<ParamsT>"
    its_view = f"{_view_name(variant, index)}<ParamsT>"
    return f"{variant.struct}Part<ParamsT, {own.struct}<{its_view}>, {its_view}>"


def _view_name(variant: Variant, index: int) -> str:
    return f"{variant.name}_Part{index + 1}"


def view(variant: Variant, index: int) -> list[str]:
    """Return the params type of a part whose parameters have other names in the composition; empty if none has."""
    renamed = variant.renamed(index)
    if not renamed:
        return []
    name = _view_name(variant, index)
    copied = ", ".join(f"{param.name}(params.{other})" for param, other in renamed)
    pairs = ", ".join(f'{{"{param.name}", "{other}"}}' for param, other in renamed)
    return [
        "template <typename ParamsT>",
        f"struct {name} : ParamsT {{",
        *(f"decltype(ParamsT::{other}) {param.name};" for param, other in renamed),
        f"static constexpr const char* renamed[][2] = {{{pairs}}};",
        "#if defined(__CUDACC__)",
        "__host__ __device__",
        "#endif",
        f"{name}(const ParamsT& params) : ParamsT(params), {copied} {{}}",
        "};",
    ]
