"""The variant interface and every variant, compiled for GPUs with NVRTC. It needs no GPU; so none becomes CPU-only."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import dimorph as dm
import dimorph.attention
from dimorph import attention as at
from support.nvrtc import Nvrtc

ATTENTION = Path(dimorph.attention.__file__).parent
INCLUDE = ATTENTION / "include"
HEADERS = sorted((INCLUDE / "dimorph/attention/variants").glob("*.h"))
ARCHITECTURES = ("sm_80", "sm_90a")
OPTIONS = ("--std=c++17", *(f"-I{path}" for path in (ATTENTION / "csrc", INCLUDE, ATTENTION.parent / "include")))

# What the built-in variants read beside the problem itself: their additional parameters, and those of the tests' own.
PARAMS = """
#include <problem.h>
#include <dimorph/attention/compose.h>
struct Params : dimorph::attention::BaseParams<float, float, float> {
  float scale, soft_cap;
  int window_left, window_right, chunk;
  int64_t bias_batch_stride, bias_head_stride;
  const int32_t *prefix_lens, *kv_valid, *qo_documents, *kv_documents;
  const int64_t *maybe_mask_starts, *tree_mask;
  const float *alibi_slopes, *sinks;
};
"""
# Fields whose type differs between variants.
FIELDS = {
    "FlashSigmoid": "float bias;",
    "Bias": "const float* bias;",
    "CustomMask": "const bool* mask;",
    "PackedMask": "const uint8_t* mask;",
    "BroadcastMask": "const bool* broadcast_mask; int64_t mask_batch_stride, mask_head_stride;",
    "KeyMask": "const bool* key_mask;",
}
# Every hook and trait of one variant, as a kernel calls them. What they return is stored, so nothing is thrown away.
PROBE = """
struct ParamsOf{name} : Params {{ {fields} }};
extern "C" __global__ void probe_{name}(ParamsOf{name} p, float* out, int b, int q, int k, int h, int kv) {{
  using V = {struct};
  using Traits = dm::Traits<V>;
  V v = dm::hooks::make<V>(p, b);
  dm::RowState<float> row{{-dm::math::infinity, 0.f}};
  dm::hooks::row_init(v, p, row, b, q, h);
  float x = dm::hooks::query_transform(v, p, out[0]);
  x = dm::hooks::logits_transform(v, p, x, b, q, k, h, kv);
  if (!dm::hooks::logits_mask<bool>(v, p, b, q, k, h, kv)) x = -dm::math::infinity;
  out[1] = dm::math::exp2(x);
  dm::hooks::row_finalize(v, p, row, b, q, h);
  out[2] = dm::hooks::output_transform(v, p, x, b, q, h, 3);
  out[3] = row.max + row.sum;
  out[4] = static_cast<float>(dm::hooks::classify_tile(v, q, q + 64, k, k + 64));
  out[5] = Traits::use_softmax + 2 * Traits::logits_additive + 4 * Traits::has_logits_mask;
}}
"""
# FlashInfer's published form of a variant, its bodies filled in: scalar indices, a third constructor argument.
ARTICLE = """
template <typename ParamsT_>
struct Article {
  using ParamsT = ParamsT_;
  using DTypeQ = typename ParamsT::DTypeQ;
  using DTypeKV = typename ParamsT::DTypeKV;
  using DTypeO = typename ParamsT::DTypeO;
  using IdType = typename ParamsT::IdType;
  static constexpr bool use_softmax = false;
  uint32_t qo_len, kv_len;
  __device__ __host__ Article(const ParamsT& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    qo_len = params.get_qo_len(batch_idx);
    kv_len = params.get_kv_len(batch_idx);
  }
  template <typename T>
  __device__ __forceinline__ T QueryTransform(const ParamsT& params, T q) {
    return float(q) * params.scale * dm::math::log2e;
  }
  template <typename T>
  __device__ __forceinline__ T LogitsTransform(const ParamsT& params, T logits, uint32_t batch_idx, uint32_t qo_idx,
                                               uint32_t kv_idx, uint32_t qo_head_idx, uint32_t kv_head_idx) {
    return dm::math::rcp(1.f + dm::math::exp2(-float(logits)));
  }
  __device__ __forceinline__ bool LogitsMask(const ParamsT& params, uint32_t batch_idx, uint32_t qo_idx,
                                             uint32_t kv_idx, uint32_t qo_head_idx, uint32_t kv_head_idx) {
    return true;
  }
};
"""


def structs(header: Path) -> list[str]:
    """The variants that a header defines."""
    names = re.findall(r"template <typename ParamsT>\nstruct (\w+)", header.read_text())
    assert names, f"{header.name} defines no variant"
    return names


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    return Nvrtc()


def probe(name: str, struct: str = "") -> str:
    return PROBE.format(name=name, struct=struct or f"dm::{name}<ParamsOf{name}>", fields=FIELDS.get(name, ""))


def check(nvrtc: Nvrtc, source: str, arch: str, *kernels: str) -> None:
    cubin, log = nvrtc.compile(source, [f"--gpu-architecture={arch}", *OPTIONS])
    assert cubin, log
    assert "warning" not in log, log
    for kernel in kernels:
        assert f".text.probe_{kernel}".encode() in cubin


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.stem)
def test_every_hook_of_every_variant_compiles(nvrtc: Nvrtc, header: Path, arch: str) -> None:
    names = structs(header)
    source = PARAMS + f"#include <dimorph/attention/variants/{header.name}>\n" + "".join(map(probe, names))
    check(nvrtc, source, arch, *names)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_compositions_compile(nvrtc: Nvrtc, arch: str) -> None:
    source = PARAMS + "".join(
        f"#include <dimorph/attention/variants/{name}.h>\n" for name in ("causal", "window", "soft_cap", "sinks")
    )
    params = "ParamsOfComposed"
    parts = ", ".join(f"dm::{name}<{params}>" for name in ("Causal", "Window", "SoftCap", "Sinks"))
    check(nvrtc, source + probe("Composed", f"dm::Compose<{params}, {parts}>"), arch, "Composed")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_composition_of_renamed_parameters_compiles(nvrtc: Nvrtc, arch: str) -> None:
    variant = at.compose(at.FlashSigmoid(1.0, 0.0), at.Bias(None, 0, 0)).variant
    axis = dm.variant_axis("variant", "COMPOSED", default=variant)
    fields = " ".join(
        replace(param, dtype=param.dtype or "float32").field()
        for param in variant.params
        if param.name.endswith("_bias")
    )
    struct = f"struct ParamsOfRenamed : Params {{ {fields} }};"
    tested = probe("Renamed", "COMPOSED<ParamsOfRenamed>").partition("\n")[2].partition("\n")[2]
    check(nvrtc, "\n".join([PARAMS, *axis.constant(variant), struct, tested]), arch, "Renamed")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_flashinfers_form_compiles(nvrtc: Nvrtc, arch: str) -> None:
    check(nvrtc, PARAMS + ARTICLE + probe("Article", "Article<ParamsOfArticle>"), arch, "Article")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_all_math_compiles(nvrtc: Nvrtc, arch: str) -> None:
    unary = ("exp2", "exp", "log2", "log", "tanh", "sigmoid", "rcp", "abs")
    calls = "".join(f"  out[{i}] = dm::math::{name}(out[{i}]);\n" for i, name in enumerate(unary))
    source = PARAMS + (
        'extern "C" __global__ void probe_math(float* out, int i) {\n' + calls + "  out[20] = dm::math::max(out[20], "
        "dm::math::min(out[21], dm::math::select(i > 0, out[22], dm::math::to_float(i))));\n}\n"
    )
    check(nvrtc, source, arch, "math")


def test_a_hook_with_wrong_arguments_is_an_error_and_not_a_missing_hook(nvrtc: Nvrtc) -> None:
    wrong = """
template <typename ParamsT>
struct Wrong {
  template <typename T>
  DM_HD T LogitsTransform(const ParamsT&, T logits) { return logits; }
};
"""
    source = PARAMS + wrong + probe("Wrong", "Wrong<ParamsOfWrong>")
    cubin, log = nvrtc.compile(source, ["--gpu-architecture=sm_80", *OPTIONS])
    assert not cubin
    assert "LogitsTransform" in log
