"""A text that snprintf cuts off is a warning, not an error."""

from __future__ import annotations

from pathlib import Path

import pytest

import dimorph as dm

ENTRY = """
#include <dimorph/entry.h>
#include "texts_config.h"
int64_t first(dimorph::Str name) {{
  {text}
  return text[0];
}}
DIMORPH_EXPORT(first)
"""


@pytest.mark.parametrize(
    "text",
    [
        'char text[8]; snprintf(text, sizeof text, "%s/%s", name.data, "1234567890");',
        'char text[3]; snprintf(text, sizeof text, "%d", 3000 + static_cast<int>(name.size));',
    ],
    ids=["a text", "a number"],
)
def test_it_is_built(tmp_path: Path, text: str) -> None:
    (tmp_path / "texts.cc").write_text(ENTRY.format(text=text))
    kernel = dm.Kernel(name="texts", entry="texts.cc", case=[], root=tmp_path)
    assert kernel.load().first("abc") in (ord("a"), ord("3"))
