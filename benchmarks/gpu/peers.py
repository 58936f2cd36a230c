"""The peers of attention on a GPU: calls that compute the same, each checked before it is timed.

Without a peer's package there is no such peer; one that fails is left out, with the reason printed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from benchmarks.gpu.check import CAUSAL, LOUD, Formula, check
from benchmarks.support.rows import python
from torch.nn.attention import SDPBackend, sdpa_kernel

Call = Callable[[], Any]
Maker = Callable[[Any, Any, Any], Call]

TORCH = {"torch_flash2": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
FLASHINFER = {"flashinfer_fa2": "fa2", "flashinfer_fa3": "fa3"}
NAMES = (*TORCH, *FLASHINFER, "flex")

# Some approximate more than the textbook does. A wrong formula is off by more than that, where logits are large.
SLACK = 10.0

# FlashInfer takes a variant as text, one for each of its generations.
SIGMOID = {
    "fa2": """
struct BenchSigmoid : AttentionVariantBase {
  static constexpr bool use_softmax = false;
  uint32_t qo_len, kv_len, window_left;
  float factor, offset;

  template <typename Params>
  __device__ __host__ BenchSigmoid(const Params& params, uint32_t batch_idx, uint8_t*)
      : qo_len(params.get_qo_len(batch_idx)),
        kv_len(params.get_kv_len(batch_idx)),
        window_left(kv_len),
        factor(-float(params.logits_scale) * math::log2e),
        offset(-float(params.sigmoid_bias) * math::log2e) {}

  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                            { return math::ptx_rcp(1.f + math::ptx_exp2(float(logits) * factor + offset)); })
  REGISTER_OUTPUT_TRANSFORM(params, output, batch_idx, qo_idx, qo_head_idx, m, d, scale, { return output; })
};
""",
    "fa3": """
struct BenchSigmoid : AttentionVariantBase {
  float factor, offset;

  template <typename MainloopParams, typename BlockCoord>
  __device__ __host__ BenchSigmoid(const MainloopParams& params, const BlockCoord&)
      : factor(-float(params.additional_params.logits_scale) * math::log2e),
        offset(-float(params.additional_params.sigmoid_bias) * math::log2e) {}

  template <int rows>
  __device__ auto GetAttentionUpdater() {
    return DefaultUpdater<rows>();
  }

  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                            { return math::ptx_rcp(1.f + math::ptx_exp2(float(logits) * factor + offset)); })
};
""",
}

FIRST_CALL = """
import sys, time, torch, flashinfer
q, k, v = (torch.randn(256, 4, int(sys.argv[2]), device="cuda", dtype=torch.bfloat16) for _ in range(3))
torch.cuda.synchronize()
start = time.perf_counter()
flashinfer.single_prefill_with_kv_cache(q, k, v, causal=True, backend=sys.argv[1])
torch.cuda.synchronize()
print(time.perf_counter() - start)
"""


def installed() -> list[str]:
    return [name for name in NAMES if name not in FLASHINFER or find_spec("flashinfer")]


def attempt(name: str, what: str, call: Callable[[], Any]) -> Any:
    """What it returns; None, with the error printed, where it fails."""
    try:
        return call()
    except Exception as error:
        print(f"  {name} is left out of {what}: {type(error).__name__}: {str(error)[-400:]}", flush=True)
        return None


def usable(makers: dict[str, Maker], formula: Formula, problem: Sequence[Any], what: str) -> dict[str, Call]:
    """The calls of those that compute the formula, by name; checked for the problem with large logits."""
    q, k, v = problem

    def checked(make: Maker) -> Call:
        loud = LOUD * q
        check(formula, loud, k, v, make(loud, k, v)().view(q.shape), SLACK)
        return make(q, k, v)

    found = {name: attempt(name, what, lambda make=make: checked(make)) for name, make in makers.items()}
    return {name: call for name, call in found.items() if call}


def torch_backend(name: str, q: Any, k: Any, v: Any, formula: Formula) -> Call:
    theirs, causal = [x.transpose(1, 2) for x in (q, k, v)], formula is CAUSAL

    def call() -> Any:
        with sdpa_kernel(TORCH[name]):
            return torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=causal).transpose(1, 2)

    return call


def flashinfer_ragged(name: str, flat: Sequence[Any], offsets: Sequence[Any], formula: Formula) -> Call:
    """Its ragged batch; offsets of queries and of keys, int32."""
    import flashinfer

    workspace = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace, backend=FLASHINFER[name])
    q, k, v = flat
    wrapper.plan(*offsets, q.shape[1], k.shape[1], q.shape[2], q_data_type=q.dtype, **(formula.flashinfer or {}))
    return lambda: wrapper.run(q, k, v)


def flashinfer_batch(name: str, q: Any, k: Any, v: Any, formula: Formula) -> Call:
    """The same for a batch of equal sequences."""
    offsets = [torch.arange(len(x) + 1, device="cuda", dtype=torch.int32) * x.shape[1] for x in (q, k)]
    return flashinfer_ragged(name, [x.flatten(0, 1) for x in (q, k, v)], offsets, formula)


def flashinfer_sigmoid(name: str, q: Any, k: Any, v: Any, scale: float, bias: float) -> Call:
    """Compiled for it by FlashInfer, as its users do with variants of their own."""
    from flashinfer.jit.attention import gen_customize_single_prefill_module
    from flashinfer.prefill import single_prefill_with_kv_cache_with_jit_module

    backend, dtype, dim = FLASHINFER[name], q.dtype, q.shape[-1]
    scalars = ["logits_scale", "sigmoid_bias"]
    described = ([], [], scalars, ["double"] * len(scalars), "BenchSigmoid", SIGMOID[backend])
    module = gen_customize_single_prefill_module(
        backend, f"bench_sigmoid_{backend}_{dim}", dtype, dtype, dtype, dim, dim, *described
    ).build_and_load()
    return lambda: single_prefill_with_kv_cache_with_jit_module(module, q[0], k[0], v[0], scale, bias)


def flex(q: Any, k: Any, v: Any, formula: Formula) -> Call:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    mask = formula.keep and create_block_mask(formula.keep, None, None, q.shape[1], k.shape[1], device=q.device)
    theirs = [x.transpose(1, 2) for x in (q, k, v)]
    return lambda: compiled(*theirs, score_mod=formula.score, block_mask=mask).transpose(1, 2)


def flashinfer_first_call(name: str, dim: int) -> float:
    """Seconds of a single prefill in a new process with nothing cached. Full and causal are compiled together."""
    with tempfile.TemporaryDirectory() as empty:
        env = {**os.environ, "FLASHINFER_WORKSPACE_BASE": empty, "CUDA_CACHE_PATH": f"{empty}/cuda"}
        return float(python(FIRST_CALL, FLASHINFER[name], str(dim), env=env).splitlines()[-1])
