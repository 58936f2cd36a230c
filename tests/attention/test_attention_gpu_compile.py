"""The GPU families' device code, compiled with NVRTC. It needs no GPU: what is held here is that it compiles, that
nothing spills, that no matrix instruction is serialised, and that both modes make the same machine code."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention.kernels import (
    append_gpu,
    attention_sm80,
    attention_sm90,
    float8_sm80,
    merge_states_gpu,
    paged_sm80,
)
from dimorph.plan.unit import device_unit
from dimorph.resolve.build import Job, build
from dimorph.store.artifact import Artifact
from dimorph.store.layers import user_store
from dimorph.toolchain import archs, cuda
from support.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY))
from benchmarks.attention import sm90_cases

ATTENTION = Path(at.__file__).parent
CSRC = ATTENTION / "csrc"
WINDOWED = at.compose(at.Causal, at.Window(1024, 0)).variant

CASES = [
    ((16, 16), "bfloat16", at.Plain),
    ((64, 64), "bfloat16", at.Causal),
    ((64, 64), "float16", at.SoftCap),
    ((128, 128), "bfloat16", at.Plain),
    ((128, 128), "bfloat16", at.Causal),
    ((128, 128), "bfloat16", WINDOWED),
    ((128, 128), "bfloat16", at.ChunkedCausal),
    ((128, 128), "bfloat16", at.TreeMask),
    ((80, 48), "float16", at.Sinks),
    ((72, 72), "bfloat16", at.Causal),
    ((8, 24), "float16", at.Plain),
    ((256, 256), "bfloat16", at.Causal),
]

PAGED_CASES = [
    ((64, 64), "bfloat16", at.Causal),
    ((128, 128), "bfloat16", at.Plain),
    ((128, 128), "bfloat16", at.Causal),
    ((128, 128), "bfloat16", at.ChunkedCausal),
    ((80, 48), "float16", at.Sinks),
    ((256, 256), "bfloat16", at.Causal),
]

FLOAT8_CASES = [
    ((64, 64), "float16", at.SoftCap, "float8_e5m2"),
    ((128, 128), "bfloat16", at.Plain, "float8_e4m3fn"),
    ((128, 128), "bfloat16", at.Causal, "float8_e4m3fn"),
    ((80, 48), "float16", at.Sinks, "float8_e5m2"),
    ((256, 256), "bfloat16", at.Causal, "float8_e4m3fn"),
    ((128, 128), "bfloat16", at.FlashSigmoid, "float8_e5m2"),
]

PLAN = """
#include "gpu/plan.h"
#include "sm80/config.h"
using namespace dimorph::attention;
using namespace dimorph::attention::gpu;
using namespace dimorph::attention::sm80;
constexpr Config c = choose_config(128, 128, 90, false);
constexpr Plan of(int batch, int queries, int keys, int heads, int kv_heads) {
  Problem p{};
  p.batch_size = batch, p.max_qo_len = queries, p.max_kv_len = keys;
  p.num_qo_heads = heads, p.num_kv_heads = kv_heads;
  return plan(c, p, int64_t{batch} * queries, 132);
}
// Many tiles: neither packed nor split.
static_assert(of(1, 16384, 16384, 32, 32).grid == 128 * 32);
static_assert(of(1, 16384, 16384, 32, 8).partition.packed_heads == 1);
static_assert(of(1, 16384, 16384, 32, 8).partition.splits == 1);
static_assert(of(1, 16384, 16384, 32, 8).merge_grid == 0 && of(1, 16384, 16384, 32, 8).partial_out_size == 0);
// Few queries: heads share tiles, keys are split, parts are merged.
static_assert(of(1, 16, 8192, 32, 8).partition.packed_heads == 4 && of(1, 16, 8192, 32, 8).partition.query_tiles == 1);
static_assert(of(1, 16, 8192, 32, 8).partition.splits == 33 && of(1, 16, 8192, 32, 8).grid == 8 * 33);
static_assert(of(1, 16, 8192, 32, 8).merge_grid == 16 * 32 / 4);
static_assert(of(1, 16, 8192, 32, 8).partial_out_size == 33 * 16 * 32 * 128);
static_assert(of(1, 16, 8192, 32, 8).partition.packed_heads_reciprocal == 1u << 29);
// No work, no keys.
static_assert(of(0, 16, 16, 4, 4).grid == 0 && of(1, 0, 16, 4, 4).grid == 0);
static_assert(of(1, 16, 0, 4, 4).partition.splits == 1);
// Every pair of head dims runs on every architecture: a block has 1 KB less than its multiprocessor.
constexpr bool fits() {
  const int archs[] = {80, 86, 87, 89, 90, 120}, most[] = {163, 99, 163, 99, 227, 99};
  for (int qk = 8; qk <= 256; qk += 8)
    for (int vo = 8; vo <= 256; vo += 8)
      for (int i = 0; i < 6; ++i) {
        for (int form = 0; form < 3; ++form) {
          const Config d = choose_config(qk, vo, archs[i], true, form > 0, form > 1);
          if (d.shared_bytes() + d.tile_keys > most[i] * 1024 || d.tile_rows() > 128) return false;
          if (d.tile_rows() * d.pitch_vo() > d.shared_bytes()) return false;
          if (form && d.tile_keys % 32 != 0) return false;
        }
      }
  return true;
}
static_assert(fits());
"""


# Not yet good: one register too many.
SPILLS = pytest.mark.xfail(reason="head dim 256 of the sm90 family spills 4 bytes where nothing is masked", strict=True)
SM90_CASES = [
    pytest.param((64, 64), "bfloat16", at.Causal),
    pytest.param((96, 96), "float16", at.SoftCap),
    pytest.param((72, 72), "bfloat16", at.Causal),
    pytest.param((8, 104), "float16", at.Plain),
    pytest.param((128, 128), "bfloat16", at.Plain),
    pytest.param((128, 128), "bfloat16", WINDOWED),
    pytest.param((128, 128), "bfloat16", at.ChunkedCausal),
    pytest.param((192, 128), "float16", at.FlashSigmoid),
    pytest.param((256, 256), "bfloat16", at.Causal),
    pytest.param((256, 256), "bfloat16", at.Plain, marks=SPILLS),
]


def _device(kernel: dm.Kernel, arch: str, store: Path, values: dict[str, Any]) -> Artifact:
    """Build the device code of a specialization, without the host code that a load needs beside it."""
    config = replace(settings.current(), store=store)
    (specialization,) = kernel.instantiations(**values)
    unit = device_unit(specialization, (archs.by_name(arch),))
    (artifact,) = build([Job(unit, unit.archs[0], cuda.find(config))], config, user_store(config))
    return artifact


@pytest.mark.parametrize(
    ("kernel", "arch", "dims", "dtype", "variant"),
    [pytest.param(attention_sm80, arch, *case) for arch in ("sm_80", "sm_86", "sm_90") for case in CASES]
    + [pytest.param(paged_sm80, arch, *case) for arch in ("sm_80", "sm_90") for case in PAGED_CASES]
    + [pytest.param(attention_sm90, "sm_90a", *case.values, marks=case.marks) for case in SM90_CASES],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_compiles_without_spills(
    kernel: dm.Kernel, arch: str, dims: tuple[int, int], dtype: str, variant: dm.Variant, shared_store: Path
) -> None:
    device = _device(kernel, arch, shared_store, {"dtype": dtype, "head_dims": dims, "variant": variant}).meta.device
    assert device
    assert not device.messages
    assert set(device.kernels) == {"attention_forward", "attention_merge"}
    for used in device.kernels.values():
        assert (used["spill_stores"], used["spill_loads"]) == (0, 0)


@pytest.mark.parametrize("few_rows", [False, True])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("dims", "dtype", "variant", "kv_dtype"), FLOAT8_CASES, ids=lambda x: getattr(x, "name", str(x))
)
def test_keys_in_8_bits_spill_nothing(
    arch: str,
    dims: tuple[int, int],
    dtype: str,
    variant: dm.Variant,
    kv_dtype: str,
    few_rows: bool,
    shared_store: Path,
) -> None:
    values = {"dtype": dtype, "head_dims": dims, "variant": variant, "kv_dtype": kv_dtype, "few_rows": few_rows}
    device = _device(float8_sm80, arch, shared_store, values).meta.device
    assert device and not device.messages
    for used in device.kernels.values():
        assert (used["spill_stores"], used["spill_loads"]) == (0, 0)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("kv_dtype", ["as_q", "float8_e4m3fn", "float8_e5m2", None])
def test_copies_leave_room_for_loads_in_flight(kv_dtype: str | None, arch: str, shared_store: Path) -> None:
    """Of blocks of 256 threads with 64 registers, four run on a multiprocessor at once."""
    kernel, more = (append_gpu, {"kv_dtype": kv_dtype}) if kv_dtype else (merge_states_gpu, {})
    device = _device(kernel, arch, shared_store, {"dtype": "bfloat16", **more}).meta.device
    assert device and not device.messages
    for used in device.kernels.values():
        assert used["registers"] <= 64 and (used["spill_stores"], used["spill_loads"], used["stack"]) == (0, 0, 0)


@pytest.mark.parametrize(("kernel", "arch"), [(attention_sm80, "sm_80"), (attention_sm90, "sm_90a")], ids=str)
def test_both_modes_make_the_same_machine_code(kernel: dm.Kernel, arch: str, tmp_path: Path) -> None:
    values = {"dtype": "float16", "head_dims": (64, 64), "variant": at.Causal}
    ahead = kernel.build(tmp_path / "ahead", archs=[arch], **values)
    (shipped,) = (artifact for artifact in ahead.artifacts if artifact.meta.device)
    config = replace(settings.current(), store=tmp_path / "store", arch=arch)
    module = kernel.load(policy="jit", settings=config, **values)
    (loaded,) = (line.artifact for line in module.resolutions if line.artifact.meta.device)
    assert shipped.path != loaded.path
    assert shipped.file.read_bytes() == loaded.file.read_bytes()


def test_tuned_cases_are_those_of_the_table() -> None:
    """benchmarks/results/sm90_cases.csv: exactly with the compiler that made it, nearly with another."""
    with sm90_cases.TABLE.open(newline="") as file:
        kept = list(csv.DictReader(file))
    found = list(sm90_cases.rows())
    if found[0]["cuda"] == kept[0]["cuda"]:
        assert found == kept, "python benchmarks/attention/sm90_cases.py --keep, if this is how it should be"
    for mine, there in zip(found, kept, strict=True):
        same = ("head_dims", "variant", "registers", "shared_bytes")
        assert [mine[name] for name in same] == [there[name] for name in same]
        assert int(mine["instructions"]) <= 1.2 * int(there["instructions"])


def test_a_wrong_hook_is_an_error_at_its_place(tmp_path: Path) -> None:
    struct = "template <typename ParamsT>\nstruct Wrong {\n  DM_HD bool LogitsMask(int) { return true; }\n};\n"
    (tmp_path / "wrong.h").write_text(f"#include <dimorph/attention/variants.h>\n{struct}")
    wrong = dm.Variant("Wrong", header="wrong.h", root=tmp_path)
    config = replace(settings.current(), store=tmp_path / "store", arch="sm_80")
    with pytest.raises(dm.BuildError, match="LogitsMask"):
        attention_sm80.load(policy="jit", settings=config, dtype="bfloat16", head_dims=(64, 64), variant=wrong)


def test_plan(tmp_path: Path) -> None:
    """Checked by the compiler: the plan is constexpr."""
    source = tmp_path / "plan.cc"
    source.write_text(PLAN)
    includes = [f"-I{path}" for path in (CSRC, ATTENTION / "include", ATTENTION.parent / "include")]
    command = ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", *includes]
    result = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
