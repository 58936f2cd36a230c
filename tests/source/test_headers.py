"""Each C++ header compiles by itself, on the host and as device code: it includes all that it uses."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention.kernels import (
    append_cpu,
    append_gpu,
    attention_cpu,
    attention_sm80,
    attention_sm90,
    merge_states_cpu,
    merge_states_gpu,
    paged_sm90,
)
from dimorph.plan import unit as plan
from dimorph.plan.load_plan import declared_archs
from dimorph.source.config_header import header_name
from dimorph.source.include_scan import Scanner
from dimorph.toolchain import cuda
from support.nvrtc import Nvrtc

CORE = plan.INCLUDE / "dimorph"
ATTENTION = Path(at.__file__).parent
CSRC = ATTENTION / "csrc"
VARIANTS = set((ATTENTION / "include/dimorph/attention").rglob("*.h"))
WITHOUT_VARIANTS = (append_cpu, append_gpu, merge_states_cpu, merge_states_gpu)
KERNELS = (attention_cpu, attention_sm80, attention_sm90, paged_sm90, *WITHOUT_VARIANTS)
GPU_KERNELS = (attention_sm80, attention_sm90, paged_sm90, append_gpu, merge_states_gpu)
# Not for device code, which the scan reaches in a branch that device code does not take.
HOST_ONLY = {ATTENTION / "include/dimorph/attention/simd.h"}
_DEFINE = re.compile(r"^#define .*$", re.MULTILINE)


def _unit(kernel: dm.Kernel, kind: str) -> plan.Unit:
    """The entry, the case or the device code of one specialization, whose variant has transform, mask and bound."""
    values: dict[str, Any] = {"dtype": "bfloat16", "head_dims": (64, 64)}
    values["variant"] = at.compose(at.Causal, at.SoftCap(1.0)).variant
    if kernel is attention_cpu:
        values["few_queries"] = True
    if kernel in WITHOUT_VARIANTS:
        values = {"dtype": "bfloat16"}
    instantiations = kernel.instantiations(**values)
    specialization = next(iter(instantiations))
    if kind == "entry":
        return plan.entry_unit(instantiations)
    return plan.case_unit(specialization) if kind == "case" else plan.device_unit(specialization, _best(specialization))


def _best(specialization: Any) -> Any:
    return (max(declared_archs(specialization), key=lambda arch: arch.rank),)


def _reached(unit: plan.Unit) -> set[Path]:
    """The headers that the compile of a unit can reach."""
    kernel = unit.kernel
    names = {"entry": (kernel.entry,), "case": kernel.case, "device": kernel.device}[unit.kind]
    sources = Scanner(unit.include_dirs, {header_name(kernel): unit.header}).scan(names)
    return {path for source in sources if (path := Path(source.path).resolve()).suffix == ".h"}


def _host_headers(kernel: dm.Kernel) -> dict[Path, plan.Unit]:
    """Header -> a unit that it belongs to. Headers that no unit of the kernel reaches are not in it."""
    return {header: unit for kind in ("entry", "case") for unit in (_unit(kernel, kind),) for header in _reached(unit)}


def _alone(header: Path, unit: plan.Unit) -> str:
    """A translation unit that holds one header, with the macros that the build defines for the unit."""
    lines = [*_DEFINE.findall(unit.text), f'#include "{header}"']
    if "namespace DIMORPH_CASE" in header.read_text():
        lines += ["#if !defined(DIMORPH_CASE)", "#error the config header is not included", "#endif"]
    return "\n".join([*lines, ""])


def _host_messages(headers: dict[Path, plan.Unit], directory: Path, *more: str) -> str:
    """Return the messages of g++ about each header by itself; empty if all compile."""
    messages = ""
    for unit in {owner.kind: owner for owner in headers.values()}.values():
        generated = directory / unit.kind
        generated.mkdir()
        (generated / header_name(unit.kernel)).write_text(unit.header)
        sources = []
        for number, header in enumerate(header for header, owner in headers.items() if owner.kind == unit.kind):
            sources.append(generated / f"{number}_{header.stem}.cc")
            sources[-1].write_text(_alone(header, unit))
        includes = [f"-I{path}" for path in (generated, *unit.include_dirs, *plan.system_include_dirs())]
        command = ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", *more]
        done = subprocess.run([*command, *includes, *map(str, sources)], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (done.stderr == ""), done.stderr
        messages += done.stderr
    return messages


def _device_messages(headers: Iterable[Path], unit: plan.Unit, directory: Path, *more: str) -> str:
    """Return the messages of NVRTC about each header by itself; empty if all compile."""
    (directory / header_name(unit.kernel)).write_text(unit.header)
    chain, nvrtc, messages = cuda.find(settings.current()), Nvrtc(), []
    cuda_headers = [chain.include] if chain.include else []
    options = [f"-arch={unit.archs[0].name}", "-std=c++17", "-default-device", *more]
    options += [f"-I{path}" for path in (directory, *unit.include_dirs, *cuda_headers)]
    for header in headers:
        cubin, log = nvrtc.compile(_alone(header, unit), options)
        messages.append(log if cubin else f"{header}: {log}")
    return "".join(messages)


def test_no_header_is_forgotten() -> None:
    host = {header for kernel in KERNELS for header in _host_headers(kernel)}
    device = {header for kernel in GPU_KERNELS for header in _reached(_unit(kernel, "device"))}
    assert {*CORE.glob("*.h"), *CSRC.rglob("*.h"), *VARIANTS} == {*CORE.glob("*.h"), *VARIANTS, *host, *device}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_on_the_host(kernel: dm.Kernel, tmp_path: Path) -> None:
    headers = _host_headers(kernel)
    if kernel is attention_sm90:  # the one whose case reaches the most of the core's headers
        headers |= dict.fromkeys([*VARIANTS, *CORE.glob("*.h")], _unit(kernel, "case"))
    else:
        headers = {header: unit for header, unit in headers.items() if CSRC in header.parents}
    assert _host_messages(headers, tmp_path) == ""


@pytest.mark.parametrize("kernel", GPU_KERNELS, ids=lambda kernel: kernel.name)
def test_as_device_code(kernel: dm.Kernel, tmp_path: Path) -> None:
    unit = _unit(kernel, "device")
    headers = _reached(unit) | (VARIANTS if kernel is attention_sm90 else set())
    assert _device_messages(sorted(headers - HOST_ONLY), unit, tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "include", "complaint"),
    [
        ("cpu/query_block.h", '#include "tiles.h"\n', "kBlockQueries"),
        ("gpu/key_tiles.h", '#include "work_tile.h"\n', "WorkTile"),
        ("gpu/ptx.h", '#include "contract.h"\n', "DType"),
        ("sm90/tma.h", '#include "../gpu/contract.h"\n', "the config header is not included"),
    ],
)
def test_a_forgotten_include_is_noticed(name: str, include: str, complaint: str, tmp_path: Path) -> None:
    text = (CSRC / name).read_text()
    assert text.count(include) == 1
    altered = tmp_path / Path(name).name
    altered.write_text(text.replace(include, ""))
    here = f"-I{CSRC / Path(name).parent}"
    if name.startswith("cpu"):
        said = _host_messages({altered: _unit(attention_cpu, "case")}, tmp_path, here)
    else:
        said = _device_messages([altered], _unit(attention_sm90, "device"), tmp_path, here)
    assert complaint in said
