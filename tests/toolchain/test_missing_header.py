"""Compilers that see no header of the machine: an error that shows at once and says how it goes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import dimorph as dm
from dimorph.toolchain import missing_header


def test_a_missing_header_is_explained_in_the_words_of_each_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.hpp").touch()
    monkeypatch.setattr(missing_header, "_SYSTEM", (tmp_path,))
    zig = missing_header.advice("zig", "a.cc:1:10: fatal error: 'there.hpp' file not found\n")
    assert f"such as {tmp_path}/there.hpp" in zig and "include_dirs" in zig and "DIMORPH_CXX" in zig
    zig = missing_header.advice("zig", "a.cc:1:10: fatal error: 'sub/elsewhere.hpp' file not found\n")
    assert "such as" not in zig and "include_dirs" in zig
    nvrtc = missing_header.advice("nvrtc", 'a.cu(1): catastrophic error: cannot open source file "there.hpp"\n')
    assert f"such as {tmp_path}/there.hpp" in nvrtc and "DIMORPH_NVCC" in nvrtc


@pytest.mark.parametrize("dialect", ["gcc", "clang", "nvcc"])
def test_compilers_that_see_the_machines_headers_get_no_such_advice(dialect: str) -> None:
    assert not missing_header.advice(dialect, "a.cc:1:10: fatal error: 'there.hpp' file not found\n")


def test_another_error_gets_no_such_advice() -> None:
    assert not missing_header.advice("zig", "a.cc:1:10: error: use of undeclared identifier 'file'\n")


@pytest.mark.parametrize("header", ["only_here_or_nowhere.hpp", "sub/only_here_or_nowhere.hpp"])
def test_zig_says_so_before_it_builds_its_library(
    header: str, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ziglang")
    monkeypatch.setenv("DIMORPH_CXX", "zig")
    (tmp_path / "one.cc").write_text(
        f'#include <dimorph/entry.h>\n#include <vector>\n#include <{header}>\n#include "one_config.h"\n'
        "int one() { return 1; }\nDIMORPH_EXPORT(one)\n"
    )
    kernel = dm.Kernel(name="one", entry="one.cc", case=[], root=tmp_path)
    began = time.monotonic()
    with pytest.raises(
        dm.BuildError, match=rf"there is no header {header}(?s:.*)sees no header of this machine"
    ) as error:
        kernel.load()
    # The library takes 60 seconds of a CPU; this about one, and the error says so again at the next try.
    assert time.monotonic() - began < 20
    assert not list(store.glob("**/libc++.a"))
    assert "include_dirs" in str(error.value) and "1 error generated" in str(error.value.output)
    with pytest.raises(dm.BuildError, match="sees no header of this machine"):
        kernel.load()
    assert time.monotonic() - began < 40
