"""Parsing the messages of compilers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dimorph.toolchain.diagnostics import Diagnostic, parse_diagnostics, parse_make_rule
from dimorph.toolchain.findings import findings


def test_messages_are_parsed() -> None:
    output = """\
In file included from /p/a.h:3,
                 from /p/b.cc:1:
/p/c.h: In function 'int f()':
/p/c.h:7:3: error: 'x' was not declared in this scope; did you mean: 'y'?
    7 |   x;
      |   ^
/p/c.h:7:3: note: suggested alternative: 'y'
/p/c.h:7:3: error: 'x' was not declared in this scope; did you mean: 'y'?
b.cc:9: warning: no column
/p/d e.h:1:10: fatal error: q.h: No such file or directory
g++: error: unrecognized command-line option '-fwrong'
error: unknown CPU: 'x87'
/usr/bin/ld: cannot find -lnothing
collect2: error: ld returned 1 exit status
/p/k.cu(5): catastrophic error: cannot open source file "q.h"
"""
    assert parse_diagnostics(output) == [
        Diagnostic("/p/c.h", 7, 3, "error", "'x' was not declared in this scope; did you mean: 'y'?"),
        Diagnostic("/p/c.h", 7, 3, "note", "suggested alternative: 'y'"),
        Diagnostic("b.cc", 9, 0, "warning", "no column"),
        Diagnostic("/p/d e.h", 1, 10, "fatal error", "q.h: No such file or directory"),
        Diagnostic("g++", 0, 0, "error", "unrecognized command-line option '-fwrong'"),
        Diagnostic("", 0, 0, "error", "unknown CPU: 'x87'"),
        Diagnostic("collect2", 0, 0, "error", "ld returned 1 exit status"),
        Diagnostic("/p/k.cu", 5, 0, "catastrophic error", 'cannot open source file "q.h"'),
    ]


def test_make_rules_are_parsed() -> None:
    text = "a.o: a.cc \\\n  /x/b\\ c.h \\\n  /x/d$$e\\#f.h /y/g.h\n"
    assert parse_make_rule(text) == [Path("a.cc"), Path("/x/b c.h"), Path("/x/d$e#f.h"), Path("/y/g.h")]


@pytest.mark.parametrize(
    ("before", "head"),
    [
        ("/usr/bin/ld: final link failed: No space left on device", "collect2: error: ld returned 1 exit status"),
        ("/usr/bin/ld: cannot find -lnothing", "clang++: error: linker command failed with exit code 1"),
        ("ld.lld: cannot open output file\nKilled", "collect2: fatal error: ld terminated with signal 9 [Killed]"),
    ],
)
def test_what_a_linker_prints_belongs_to_the_error_of_its_driver(before: str, head: str) -> None:
    (one,) = findings(f"{before}\n{head}\ncompilation terminated.\n")
    assert one.text == f"{before}\n{head}\ncompilation terminated."
    assert "error" in one.head.severity


@pytest.mark.parametrize("output", ["", "Killed\n", "/p/a.cc:1:2: note: declared here\n"])
def test_an_output_without_an_error_has_no_findings(output: str) -> None:
    assert findings(output) == []
