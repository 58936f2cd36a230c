"""Dependencies in wheels that others publish: headers of numpy, headers and library of NVRTC."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import dimorph as dm
from dimorph.store import links
from support.dependencies import probe

NUMPY = """\
#include <dimorph/entry.h>
#include "probe_config.h"
#include <numpy/numpyconfig.h>
int64_t probe() { return NPY_ABI_VERSION >> 24; }
DIMORPH_EXPORT(probe)
"""
NVRTC = """\
#include <dimorph/entry.h>
#include "probe_config.h"
#include <nvrtc.h>
int64_t probe() {
  int major = 0, minor = 0;
  return nvrtcVersion(&major, &minor) == NVRTC_SUCCESS ? 100 * major + minor : -1;
}
DIMORPH_EXPORT(probe)
"""


@pytest.mark.parametrize(
    "dependency",
    [
        pytest.param(
            dm.pkg_config("numpy"),
            marks=pytest.mark.skipif(
                not shutil.which("pkg-config"), reason="needs pkg-config: apt-get install pkg-config"
            ),
        ),
        dm.python_package("numpy", include_dirs=["numpy/_core/include"]),
    ],
    ids=["pkg-config", "package"],
)
def test_headers_of_numpy(dependency: dm.Dependency, tmp_path: Path) -> None:
    module = probe(tmp_path / "kernel", dependency, entry=NUMPY).load()
    assert module.probe() == 2
    assert module.resolutions[0].artifact.meta.toolchain.endswith(f" with numpy {np.__version__}")


def test_nvrtc_is_loaded_out_of_its_wheel(tmp_path: Path) -> None:
    dependency = dm.python_package(
        "nvidia-cuda-nvrtc", include_dirs=["nvidia/cu13/include"], libraries=["nvidia/cu13/lib/libnvrtc.so.13"]
    )
    module = probe(tmp_path / "kernel", dependency, entry=NVRTC).load()
    version = metadata.version("nvidia-cuda-nvrtc")
    major, minor = version.split(".")[:2]
    assert module.probe() == 100 * int(major) + int(minor)
    artifact = module.resolutions[0].artifact
    assert [str(link) for link in links.read(artifact)] == [f"nvidia-cuda-nvrtc {version} (libnvrtc.so.13, required)"]
    assert sum(record.size for record in artifact.meta.files.values()) < 10_000_000
