"""Variables of an entry, which a late build would lose, are refused; constants are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dimorph as dm

ENTRY = """
#include <dimorph/entry.h>
#include "tally_config.h"
{before}
int64_t tally(int64_t width) {{
  {inside}
  DISPATCH_width(width, WIDTH, return DIMORPH_CALL(tally, int64_t)());
}}
DIMORPH_EXPORT(tally)
"""
CASE = """
#include <dimorph/case.h>
#include "tally_config.h"
namespace DIMORPH_CASE {
int64_t tally() noexcept { return 100 * WIDTH; }
}
"""


def _tally(root: Path, before: str = "", inside: str = "", **axis: Any) -> dm.Kernel:
    (root / "tally.cc").write_text(ENTRY.format(before=before, inside=inside))
    (root / "tally_case.cc").write_text(CASE)
    (root / "more.h").write_text("inline int64_t next() {\n  static int64_t last = 0;\n  return ++last;\n}\n")
    axes = [dm.int_axis("width", "WIDTH", [2, 3], **axis)]
    return dm.Kernel(name="tally", entry="tally.cc", case=["tally_case.cc"], axes=axes, root=root)


VARIABLES = [
    ("static int64_t calls = 0;", "++calls;", "calls"),
    ("int64_t shared_calls = 5;", "++shared_calls;", "shared_calls"),
    ("namespace mine { int64_t inner[3]; }", "++mine::inner[1];", "inner"),
    ("namespace { thread_local int64_t mark; }", "++mark;", "mark"),
    ("", "static int64_t count = 0; ++count;", "count"),
    ("#include <map>\nstatic std::map<int, int> seen;", "++seen[1];", "seen"),
    ('#include "more.h"', "next();", "last"),
    ("struct Held { static int64_t kept; };\nint64_t Held::kept = 1;", "++Held::kept;", "kept"),
]


@pytest.mark.parametrize(("before", "inside", "name"), VARIABLES, ids=[name for *_, name in VARIABLES])
def test_a_variable_that_a_late_build_would_lose_is_refused(
    tmp_path: Path, before: str, inside: str, name: str
) -> None:
    kernel = _tally(tmp_path, before, inside, accepts=lambda width: width > 0)
    with pytest.raises(dm.BuildError) as caught:
        kernel.load()
    lines = str(caught.value).splitlines()
    assert f"tally entry: expected an entry without variables, got {name} in tally.cc" in lines[0]
    assert "axis width" in lines[1] and "in the case" in lines[2] and len(lines) == 3


@pytest.mark.parametrize(
    ("before", "inside"),
    [
        ("static const int64_t table[] = {1, 2};", "width += 0 * table[width % 2];"),
        ("#include <iostream>\nstatic constexpr double half_of = 0.5;", "width += static_cast<int64_t>(half_of);"),
        ('static const char* const names[] = {"a", "b"};', "width += 0 * names[width % 2][0];"),
        ("int64_t same(int64_t x) { return x; }\nint64_t (*const chosen)(int64_t) = same;", "width = chosen(width);"),
    ],
    ids=["table", "constexpr", "pointers", "function"],
)
def test_constants_are_not_variables(tmp_path: Path, before: str, inside: str) -> None:
    module = _tally(tmp_path, before, inside, accepts=lambda width: width > 0).load()
    assert [module.tally(3), module.tally(7), module.tally(3)] == [300, 700, 300]


def test_the_entry_of_a_closed_set_may_have_variables(tmp_path: Path) -> None:
    """No late build replaces it."""
    module = _tally(tmp_path, "static int64_t calls = 0;", "if (++calls == 3) return calls;").load()
    assert [module.tally(2), module.tally(3), module.tally(2)] == [200, 300, 3]
