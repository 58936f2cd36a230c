"""A new kind of axis is one class: the one that docs/dev/index.md shows works in both forms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import dimorph as dm
from dimorph.declare.axes import Axis, index_switch
from support.forms import Form
from support.paths import REPOSITORY

ENTRY = """#include <dimorph/entry.h>
#include "letters_config.h"
int64_t letters(int64_t letter) {
  int64_t answer = -1;
  DISPATCH_letter(static_cast<char>(letter), LETTER, answer = DIMORPH_CALL(letters, int64_t)());
  return answer;
}
DIMORPH_EXPORT(letters)
"""
CASE = """#include <dimorph/case.h>
#include "letters_config.h"
namespace DIMORPH_CASE {
int64_t letters() noexcept { return LETTER; }
}
"""


class CharAxis(Axis):
    """One letter, bound as `constexpr char BIND`."""

    kind = "char"
    expected = "one letter"

    def normal(self, given: object) -> str | None:
        return given if isinstance(given, str) and len(given) == 1 else None

    def literal(self, value: str) -> str:
        return repr(value)

    def constant(self, value: str) -> list[str]:
        return [f"constexpr char {self.binds[0]} = {self.literal(value)};"]

    def index_function(self, values: Sequence[str]) -> list[str]:
        return index_switch(self.name, "char", "value", map(self.literal, values))


def test_it_works_in_both_forms(tmp_path: Path, mode: Form) -> None:
    (tmp_path / "letters.cc").write_text(ENTRY)
    (tmp_path / "letters_case.cc").write_text(CASE)
    kernel = dm.Kernel(
        name="letters",
        entry="letters.cc",
        case=["letters_case.cc"],
        axes=[CharAxis("letter", ("LETTER",), ("a", "b"))],
        root=tmp_path,
    )
    assert mode.load(kernel, letter="b").letters(ord("b")) == ord("b")


def test_the_page_shows_this_class() -> None:
    page = (REPOSITORY / "docs" / "dev" / "index.md").read_text("utf-8")
    here = Path(__file__).read_text("utf-8")
    (shown,) = re.findall(r"^```python\n(class CharAxis.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert shown in here
