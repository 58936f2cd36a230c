"""Variables that outlive a call: a case has one for each specialization, an entry one for each set of values."""

from __future__ import annotations

from pathlib import Path

import dimorph as dm

ENTRY = """
#include <dimorph/entry.h>
#include "tally_config.h"
int64_t entered() {
  static int64_t calls = 0;
  return ++calls;
}
DIMORPH_EXPORT(entered)
int64_t tally(int64_t width) {
  DISPATCH_width(width, WIDTH, return DIMORPH_CALL(tally, int64_t)());
}
DIMORPH_EXPORT(tally)
"""
CASE = """
#include <dimorph/case.h>
#include "tally_config.h"
namespace DIMORPH_CASE {
int64_t calls = 100 * WIDTH;
int64_t tally() noexcept { return ++calls; }
}
"""


def _tally(root: Path) -> dm.Kernel:
    (root / "tally.cc").write_text(ENTRY)
    (root / "tally_case.cc").write_text(CASE)
    axes = [dm.int_axis("width", "WIDTH", [2, 3])]
    return dm.Kernel(name="tally", entry="tally.cc", case=["tally_case.cc"], axes=axes, root=root)


def test_modules_share_the_variables_of_a_case(tmp_path: Path) -> None:
    kernel = _tally(tmp_path)
    one, both = kernel.load(width=2), kernel.load()
    assert [one.tally(2), both.tally(2), one.tally(2), both.tally(3)] == [201, 202, 203, 301]


def test_modules_of_one_set_share_the_variables_of_an_entry(tmp_path: Path) -> None:
    kernel = _tally(tmp_path)
    one, same, both = kernel.load(width=2), kernel.load(width=2), kernel.load()
    assert [one.entered(), same.entered(), both.entered()] == [1, 2, 1]
