"""A parser of the messages of CUDA's assembler: resources of kernels, warnings and advice."""

from __future__ import annotations

import re

_PROPERTIES = re.compile(r"ptxas info\s*: (?:Function properties for|Compiling entry function '?)\s*([\w$.]+)")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"ptxas info\s*: Used (\d+) registers(.*)")
_SHARED = re.compile(r"(\d+)(?:\+\d+)? bytes smem")
# Advice such as C7510 (wgmma serialised), and all warnings.
_ADVICE = re.compile(
    r"^(?:ptxas\s*(?:info|warning|error)?\s*[:,].*\(C7\d+\).*|ptxas warning.*|.*\bwarning #?\d*.*)$", re.M
)


def report(output: str) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return the resources of the kernels and the warnings in the output of a compile to machine code.

    Returns:
        CUDA kernel -> `registers` (of a thread) and, in bytes, `stack`, `spill_stores`, `spill_loads` and `shared`
        (static); and the warnings, with the assembler's `C75..` advice.
    """
    kernels: dict[str, dict[str, int]] = {}
    name = ""
    for line in output.splitlines():
        if match := _PROPERTIES.search(line):
            name = match[1]
        elif match := _SPILLS.search(line):
            spills = dict(zip(("stack", "spill_stores", "spill_loads"), map(int, match.groups()), strict=True))
            kernels.setdefault(name, {}).update(spills)
        elif match := _USED.search(line):
            shared = _SHARED.search(match[2])
            used = {"registers": int(match[1]), "shared": int(shared[1]) if shared else 0}
            kernels.setdefault(name, {}).update(used)
    # Device functions that are not inlined are listed too, but registers are reported of kernels only.
    return {k: v for k, v in kernels.items() if "registers" in v}, [m[0].strip() for m in _ADVICE.finditer(output)]
