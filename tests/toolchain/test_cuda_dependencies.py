"""Dependencies of device code, as far as no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.toolchain import archs
from dimorph.toolchain.cuda import CudaCompiler
from dimorph.toolchain.found import Found
from dimorph.toolchain.with_dependencies import WithDependencies
from support.cuda import RMS
from support.dependencies import headers

pytestmark = pytest.mark.usefixtures("fresh_dependencies")

VALUES = {"dtype": "float16", "width": 1024}


def test_device_code_includes_them(copy_of: Callable[..., dm.Kernel], tmp_path: Path) -> None:
    answer = dm.library("answer", include_dirs=[headers(tmp_path)], defines={"LIMIT": 3})
    kernel = copy_of(RMS, dependencies=[answer])
    source = kernel.root / "rms.cu"
    check = 'static_assert(VALUE < LIMIT, "VALUE is not below LIMIT");'
    source.write_text(f"#include <answer.h>\n{check}\n{source.read_text()}")
    config = replace(settings.current(), arch="sm_80")

    def made() -> list[str]:
        resolved = kernel.load(settings=config, **VALUES).resolutions
        return [one.place.partition(" ")[0] for one in resolved if one.unit.kind == "device"]

    assert [made(), made()] == [["built"], ["store"]]
    headers(tmp_path, 2)  # reached by a macro
    assert [made(), made()] == [["built"], ["store"]]
    headers(tmp_path, 3)
    with pytest.raises(dm.BuildError, match="VALUE is not below LIMIT"):
        made()


@pytest.mark.parametrize("dialect", ["nvcc", "nvrtc"])
def test_command_lines_name_them(dialect: str, tmp_path: Path) -> None:
    compiler = CudaCompiler(dialect, Path("/cuda/bin/tool"), (13, 0), None, "/bin")  # type: ignore[arg-type]
    found = Found("answer", "1.0", ("/opt/answer/include",), ("LIMIT=3", "EMPTY"), (), ())
    command = WithDependencies(compiler, (found,)).compile_command(
        Path("a.cu"),
        Path("a.cubin"),
        target=archs.by_name("sm_80"),
        include_dirs=[Path("/project")],
        prefix_map={},
        extra_flags=["-O1"],
        memo_dir=tmp_path,
    )
    assert command.index("-I/project") < command.index("-I/opt/answer/include")
    assert {"-DLIMIT=3", "-DEMPTY"} <= set(command)
    assert "-O1" not in command
