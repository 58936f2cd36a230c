"""Two kernels with one entry, as one for the CPU and one for the GPU have: `config` names the header they include."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph.aot import discover
from dimorph.plan.key_record import KeyRecord
from support.cli import runner

ENTRY = """#include "fill_config.h"

void fill(Tensor y, int64_t width) { DISPATCH_width(width, WIDTH, DIMORPH_CALL(fill)(y)); }
DIMORPH_EXPORT(fill)
"""
CASE = """#include "fill_config.h"

namespace DIMORPH_CASE {
void fill(View<double, 1> y) noexcept {
  for (int64_t i = 0; i < y.size(0); ++i) y(i) = %d * WIDTH;
}
}  // namespace DIMORPH_CASE
"""
DEVICE = """#include "fill_config.h"

namespace DIMORPH_CASE {
extern "C" __global__ void fill_kernel(double* y) { y[threadIdx.x] = WIDTH; }
}  // namespace DIMORPH_CASE
"""
LAUNCH = """#include <dimorph/cuda.h>

#include "fill_config.h"

namespace DIMORPH_CASE {
void fill(Tensor y) noexcept {
  dimorph::cuda::Config config;
  config.block.x = static_cast<unsigned>(y.size(0));
  DIMORPH_LAUNCH(fill_kernel, y.device(), config, y.data<double>());
}
}  // namespace DIMORPH_CASE
"""
DECLARATION = """import dimorph as dm

axes = [dm.int_axis("width", "WIDTH", [3, 5])]
fill = dm.Kernel("fill", axes=axes)
tenfold = dm.Kernel("tenfold", entry="fill.cc", config="fill_config.h", functions=["fill"], axes=axes)
fill_gpu = dm.Kernel(
    "fill_gpu",
    entry="fill.cc",
    config="fill_config.h",
    functions=["fill"],
    device=["fill.cu"],
    archs=["sm_80"],
    axes=axes,
)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    texts = {
        "fill.cc": ENTRY,
        "fill_case.cc": CASE % 1,
        "tenfold_case.cc": CASE % 10,
        "fill_gpu_case.cc": LAUNCH,
        "fill.cu": DEVICE,
        "fills.py": DECLARATION,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path / "fills.py"


def kernels(project: Path) -> dict[str, Any]:
    return {kernel.name: kernel for kernel in discover.load_kernels(str(project))}


@pytest.mark.parametrize("values", [{}, {"width": 5}])
def test_each_kernel_has_its_own_case(project: Path, values: dict[str, Any]) -> None:
    found = kernels(project)
    y = np.zeros(4)
    for name, factor in (("fill", 1), ("tenfold", 10)):
        found[name].load(**values).fill(y, 5)
        assert (y == factor * 5).all()


def test_all_are_built_into_one_directory(project: Path, tmp_path: Path) -> None:
    found = kernels(project)
    out = tmp_path / "_dimorph"
    for kernel in found.values():
        kernel.build(out)
    y = np.zeros(4)
    for name, factor in (("fill", 1), ("tenfold", 10)):
        module = found[name].load(policy="aot")
        module.fill(y, 3)
        assert (y == factor * 3).all()
        assert all(one.place.startswith("packaged") for one in module.resolutions)
        record = KeyRecord.recorded(module.resolutions[-1].artifact)
        assert "constexpr int WIDTH = 3;" in record.header


def test_an_editor_reads_the_shared_entry(project: Path) -> None:
    run = runner(project.parent)
    for name in ("fill", "tenfold"):
        run("ide", f"{project}:{name}")
    database = json.loads((project.parent / "compile_commands.json").read_text())
    files = [Path(one["file"]).name for one in database]
    assert sorted(files) == ["fill.cc", "fill.cc", "fill_case.cc", "tenfold_case.cc"]
    for one in database:
        included = [Path(word[2:], "fill_config.h") for word in one["arguments"] if word.startswith("-I")]
        assert any(header.is_file() for header in included), one


@pytest.mark.parametrize("config", ["fill.h", "a/fill_config.h", 'fill"_config.h', 3])
def test_other_names_are_refused(config: Any) -> None:
    with pytest.raises(dm.DeclarationError, match=r"kernel 'fill': config: expected a file name that ends with"):
        dm.Kernel("fill", config=config)


def test_a_forgotten_config_is_told(project: Path) -> None:
    kernel = kernels(project)["fill"]
    other = replace(kernel, name="other")
    with pytest.raises(dm.BuildError, match=r'(?s)there is no header fill_config\.h.*config="fill_config\.h"'):
        other.load(width=3)


def test_a_case_that_launches_nothing_is_told(project: Path) -> None:
    (project.parent / "fill_gpu_case.cc").write_text(CASE % 1)
    with pytest.raises(dm.BuildError, match=r"(?s)fill_gpu_case\.cc:1.*the case launches nothing.*DIMORPH_LAUNCH"):
        kernels(project)["fill_gpu"].build(project.parent / "out")


def test_a_launch_by_a_header_of_a_library_needs_the_include_by_name(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    library = tmp_path_factory.mktemp("library")
    (library / "launcher.h").write_text("#include <dimorph/cuda.h>\n#define LAUNCH_FILL DIMORPH_LAUNCH\n")
    case = project.parent / "fill_gpu_case.cc"
    case.write_text(LAUNCH.replace("<dimorph/cuda.h>", "<launcher.h>").replace("DIMORPH_LAUNCH", "LAUNCH_FILL"))
    kernel = kernels(project)["fill_gpu"]
    own = dm.library("launcher", include_dirs=[library])
    known = replace(kernel, dependencies=[own], root=kernel.root)
    with pytest.raises(dm.BuildError, match=r"dimorph/cuda\.h, which is part of no key.*include it by name"):
        known.build(project.parent / "out")
    case.write_text(f"#include <dimorph/cuda.h>\n{case.read_text()}")
    assert known.build(project.parent / "out").built > 0
