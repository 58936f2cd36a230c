"""Compilers for tests: scripts around g++ that log their compiles or change them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimorph.errors import BuildError
from dimorph.toolchain import process
from dimorph.toolchain.diagnostics import parse_make_rule
from dimorph.toolchain.host import HostCompiler

GXX = shutil.which("g++") or "g++"


@dataclass(frozen=True)
class Compiler:
    """A compiler program that appends one line to a log for each compile."""

    driver: Path
    log: Path

    def compiled(self) -> list[str]:
        """Return the kind of unit (the name of its source) of each compile so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []


def counting_compiler(directory: Path, name: str = "counting-g++", *, before: str = "") -> Compiler:
    """Make a script that logs every compile of a shared object and runs g++; `before` is shell code to run first."""
    log, driver = directory / f"{name}.log", directory / name
    driver.write_text(
        f"#!/bin/sh\n{before}\n"
        'case " $* " in *" -shared "*" -o "*) for word; do case "$word" in '
        f'*_unit.cc) echo "${{word##*/}}" >> {log};; esac; done;; esac\n'
        f'exec {GXX} "$@"\n'
    )
    driver.chmod(0o755)
    return Compiler(driver, log)


def read_by(compiler: HostCompiler, source: Path, work_dir: Path, **arguments: Any) -> list[Path]:
    """Return every file that the compiler says it reads for `source`, including `source` and system headers."""
    rule = work_dir / f"{source.name}.d"
    command = [*compiler.compile_command(source, rule, **arguments), "-w", "-M"]
    done = process.run(command, timeout=60.0, cwd=work_dir, env=compiler.environment(work_dir))
    if done.exit_code != 0:
        raise BuildError(done.output)
    return parse_make_rule(os.fsdecode(rule.read_bytes()))
