"""A program that compiles a CUDA source for the emulator: nvcc's command line in, a shared object of g++ out.

python nvcc.py G++ FLAGS NVCC'S ARGUMENTS...
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
_STRING = r'"(?:[^"\\]|\\.)*"'
_ASM = re.compile(rf"{_STRING}|\basm\b\s*(?:volatile\s*)?\(")
_KERNEL = re.compile(r"__global__\s+void\s+(?:(__launch_bounds__)\s*\()?")
_SHARED = re.compile(r"(extern\s+)?__shared__\s+(?:alignas\(\w+\)\s+)?([^;\[\]]*?)(\w+)\s*((?:\[[^;]*?\])*)\s*;")


def main(compiler: str, flags: str, *arguments: str) -> int:
    if arguments == ("--version",):
        print("an emulator")
        return 0
    kept = [a for a in arguments if a.startswith(("-I", "-std="))]
    arch = next(a for a in arguments if a.startswith("-gencode")).partition("code=sm_")[2].rstrip("af")
    source, _, output = arguments[-3:]
    listing = ["-MD", "-MF", arguments[arguments.index("-MF") + 1], "-MT", output] if "-MF" in arguments else []
    defined = [f"-DEMULATED_ARCH={arch}0", "-include", str(HERE / "device.h")]
    first = [compiler, "-E", *kept, *listing, *defined, "-x", "c++", source]
    read = subprocess.run(first, stdout=subprocess.PIPE, text=True, check=False)
    if read.returncode:
        return read.returncode
    # As on a GPU, uninitialised variables are arbitrary (here: a pattern) and memory can be accessed as any type.
    second = [compiler, "-x", "c++", "-fpreprocessed", *kept, *shlex.split(flags), "-fPIC", "-shared"]
    second += ["-fvisibility=hidden", "-fno-strict-aliasing", "-ftrivial-auto-var-init=pattern", "-", "-o", output]
    return subprocess.run(second, input=rewritten(read.stdout), text=True, check=False).returncode


def rewritten(text: str) -> str:
    """Return preprocessed device code as C++, with the same line numbers."""
    return _SHARED.sub(_shared, "".join(_kernels("".join(_statements(text)))))


def _statements(text: str) -> Iterator[str]:
    """Yield the pieces of the text with asm statements replaced by calls."""
    done = 0
    while match := _ASM.search(text, done):
        yield text[done : match.start()]
        done = match.end()
        if match[0].startswith('"'):
            yield match[0]
            continue
        done = _closing(text, match.end())
        yield _statement(text[match.start() : done], text[match.end() : done - 1])
    yield text[done:]


def _statement(whole: str, inside: str) -> str:
    template, *lists = _split(inside, ":")
    operands = []
    for kind, listed in zip(("output", "input"), lists, strict=False):  # clobbers follow; lists may be missing
        for one in filter(str.strip, _split(listed, ",")):
            expression = one.strip().partition("(")[2][:-1]
            operands.append(f"::emulator::{kind}({' '.join(expression.split())})")
    call = (
        f"do {{ static const ::emulator::Instruction emulated({' '.join(template.split())}); "
        f"::emulator::Operand operands[] = {{{', '.join([*operands, '{}'])}}}; emulated.run(operands); }} while (0)"
    )
    return call + "\n" * whole.count("\n")


def _kernels(text: str) -> Iterator[str]:
    """Yield the pieces of the text, with a declaration and a description before the definition of each kernel."""
    done = 0
    while match := _KERNEL.search(text, done):
        yield text[done : match.start()]
        name = _closing(text, match.end()) if match[1] else match.end()
        bounds = text[match.end() : name - 1] if match[1] else ""
        done = _closing(text, text.index("(", name) + 1)
        signature = text[name:done].strip()
        identifier = signature.partition("(")[0].strip()
        described = f'__attribute__((visibility("default"))) extern const ::emulator::Kernel emulated_{identifier}'
        yield f'void {signature}; extern "C" {{ {described}; const ::emulator::Kernel emulated_{identifier} = '
        yield f'::emulator::describe<{identifier}>({bounds}); }} extern "C" void {signature}'
    yield text[done:]


def _shared(match: re.Match[str]) -> str:
    dynamic, kind, name, sizes = match.groups()
    if dynamic:
        return f"{kind.strip()}* const {name} = static_cast<{kind.strip()}*>(::emulator::dynamic_shared());"
    return f"auto& {name} = ::emulator::shared_variable<{kind.strip()}{sizes}>([] {{}});"


def _closing(text: str, start: int) -> int:
    """Return the position after the bracket that closes the one before `start`."""
    depth = 1
    for match in re.compile(rf"{_STRING}|[()]").finditer(text, start):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    raise ValueError(f"unbalanced brackets: {text[start : start + 80]}")


def _split(text: str, separator: str) -> list[str]:
    """Split at separators outside of brackets and strings."""
    depth, parts, done = 0, [], 0
    for match in re.compile(rf"{_STRING}|[()]|{separator}").finditer(text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if match[0] == separator and depth == 0:
            parts.append(text[done : match.start()])
            done = match.end()
    return [*parts, text[done:]]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
