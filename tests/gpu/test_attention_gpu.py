"""dimorph.attention on a GPU against its definition in float64: random problems, layouts, streams, graphs, torch."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.toolchain import nvidia_driver as driver
from support.attention_check import failures
from support.attention_configs import DTYPES, ROUND, Array, Specialization, config_of
from support.attention_parts import MORE
from support.attention_range import KEYS, MANY_KEYS, VARIANTS, check
from support.emulated import problems

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)

FAMILIES = ["sm80", "sm90"] if torch.cuda.get_device_capability() == (9, 0) else ["sm80"]
NUMBER = int(os.environ.get("ATTENTION_ROUND", "0"))
CHUNKS = 20
CONFIGS = [
    config
    for config in map(config_of, range(NUMBER * ROUND, (NUMBER + 1) * ROUND))
    if config.specialization.dtype != "float32"
][:500]
CONFIGS.sort(key=lambda config: repr(config.specialization))


class OnGpu:
    """Takes and gives what `Attention` does on the CPU, and computes it on the GPU."""

    def __init__(self, attend: at.Attention) -> None:
        self._attend = attend

    def __call__(self, q: Array, k: Array, v: Array, *, variant: dm.BoundVariant, **options: Any) -> Any:
        given = {name: options.pop(name) for name in ("out", "lse") if name in options}
        moved = {name: to_gpu(value) if isinstance(value, np.ndarray) else value for name, value in options.items()}
        args = tuple(to_gpu(arg) if isinstance(arg, np.ndarray) else arg for arg in variant.args)
        out = torch.full((*q.shape[:-1], v.shape[-1]), float("nan"), dtype=to_gpu(q).dtype, device="cuda")
        lse = torch.full(q.shape[:-1], float("nan"), device="cuda")
        moved |= {"out": out, "lse": lse} if options.get("return_lse") else {"out": out}
        self._attend(to_gpu(q), to_gpu(k), to_gpu(v), variant=dm.BoundVariant(variant.variant, args), **moved)
        results = []
        for name, tensor in (("out", out), ("lse", lse)):
            array = to_numpy(tensor, q.dtype)
            if name in given:
                given[name][...] = array
                array = given[name]
            results.append(array)
        return tuple(results) if options.get("return_lse") else results[0]


def to_gpu(array: Array) -> Any:
    array = np.array(array, order="C")
    if array.dtype == DTYPES["bfloat16"]:
        return torch.from_numpy(array.view(np.uint16)).cuda().view(torch.bfloat16)
    return torch.from_numpy(array).cuda()


def to_numpy(tensor: Any, dtype: Any) -> Array:
    tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.uint16).numpy().view(dtype))
    return np.asarray(tensor.numpy())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_25_random_problems(chunk: int, family: str, shared_store: Path) -> None:
    config = replace(settings.current(), store=shared_store)
    size = len(CONFIGS) // CHUNKS
    problems = CONFIGS[chunk * size : (chunk + 1) * size]
    attend = OnGpu(at.Attention(policy="jit", settings=config, family=family))
    failed = failures(attend, problems)  # type: ignore[arg-type]
    assert not failed, f"{len(failed)} of {size} failed:\n" + "\n".join(failed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", MORE)
def test_variants_that_the_random_problems_leave_out(name: str, dtype: str, family: str, shared_store: Path) -> None:
    config = replace(settings.current(), store=shared_store)
    attend = OnGpu(at.Attention(policy="jit", settings=config, family=family))
    for variant in ((name,), (name, "SoftCap", "Sinks")):
        failed = failures(attend, problems(Specialization(dtype, (128, 128), variant)))  # type: ignore[arg-type]
        assert not failed, "\n".join(failed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("queries", "keys"), [(8, KEYS), (70, KEYS), (8, MANY_KEYS)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_up_to_the_largest_float(
    name: str, dtype: str, queries: int, keys: int, family: str, shared_store: Path
) -> None:
    config = replace(settings.current(), store=shared_store)
    check(OnGpu(at.Attention(policy="jit", settings=config, family=family)), name, dtype, queries, keys)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_sanitizers_find_nothing(tool: str, family: str, warm_store: Path) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    program = [sys.executable, "-m", "support.gpu_arrays", family]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # Everything is compiled before: a sanitizer looks at compilers, too, which then take minutes.
    subprocess.run(program, check=True, env=env)
    # The driver is asked for parameters until there are no more: an error that is no fault.
    options = ["--tool", tool, "--error-exitcode", "9", "--report-api-errors", "no"]
    done = subprocess.run([sanitizer, *options, *program], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "problems, 0 failed" in done.stdout
    clean = "RACECHECK SUMMARY: 0 hazards" if tool == "racecheck" else "ERROR SUMMARY: 0 errors"
    assert clean in done.stdout, done.stdout[-2000:]


@pytest.fixture(params=FAMILIES)
def attend(warm_store: Path, request: pytest.FixtureRequest) -> at.Attention:
    return at.Attention(family=request.param)


def inputs(queries: int = 200, keys: int = 300, dim: int = 64) -> list[Any]:
    torch.manual_seed(0)
    shapes = [(2, queries, 8, dim), (2, keys, 2, dim), (2, keys, 2, dim)]
    return [torch.randn(shape, device="cuda").bfloat16() for shape in shapes]


def expected(q: Any, k: Any, v: Any, causal: bool = False) -> Any:
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    shape = q.shape[2], k.shape[2]
    mask = torch.ones(shape, dtype=torch.bool, device="cuda").tril(shape[1] - shape[0]) if causal else None
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def close(out: Any, reference: Any) -> None:
    assert (out.double() - reference).abs().max() <= 0.01 * reference.abs().max()


def test_strides(attend: at.Attention) -> None:
    q, k, v = inputs()
    moved = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    wide = torch.full((2, 200, 8, 128), float("nan"), device="cuda", dtype=q.dtype)
    close(attend(*moved, variant=at.Causal, out=wide[..., :64]), expected(q, k, v, causal=True))
    assert wide[..., 64:].isnan().all()


@pytest.mark.parametrize("dim", [8, 24, 40, 72, 88, 104, 136, 248])
@pytest.mark.parametrize(("queries", "keys"), [(200, 300), (3, 5000)])  # the second: split and merged
def test_head_dims_that_are_no_multiple_of_16(attend: at.Attention, dim: int, queries: int, keys: int) -> None:
    """Dense, in rows that lie apart with NaN between them, and ragged."""
    q, k, v = inputs(queries, keys, dim)
    reference = expected(q, k, v, causal=True)
    close(attend(q, k, v, variant=at.Causal), reference)
    apart = [torch.full((*x.shape[:-1], dim + 8), float("nan"), device="cuda", dtype=x.dtype) for x in (q, k, v, q)]
    for wide, array in zip(apart, (q, k, v), strict=False):
        wide[..., :dim] = array
    views = [wide[..., :dim] for wide in apart]
    close(attend(*views[:3], variant=at.Causal, out=views[3]), reference)
    assert apart[3][..., dim:].isnan().all()
    ends = [torch.tensor([0, n, 2 * n], dtype=torch.int32, device="cuda") for n in (queries, keys)]
    out = attend(*(x.flatten(0, 1) for x in (q, k, v)), variant=at.Causal, cu_seqlens_q=ends[0], cu_seqlens_k=ends[1])
    close(out.view(q.shape), reference)


def test_rows_heads_and_sequences_that_are_one(attend: at.Attention) -> None:
    """Broadcast keys and values: strides of 0."""
    q, k, v = inputs()
    for one in ((slice(None), slice(None), slice(1)), (slice(1),), (slice(None), slice(1))):
        few = [x[one] for x in (k, v)]
        wide = [x.expand(k.shape) for x in few]
        close(attend(q, *wide, variant=at.Causal), expected(q, *(x.contiguous() for x in wide), causal=True))


def test_an_output_that_is_an_input_is_refused(attend: at.Attention) -> None:
    q, k, v = inputs(queries=300)
    with pytest.raises(ValueError, match="argument 'out': expected memory of its own, got that of 'q'"):
        attend(q, k, v, out=q)


def test_a_miss_during_capture_is_refused(store: Path) -> None:
    attend = at.Attention(policy="jit")
    q, k, v = inputs()
    out, workspace = torch.empty_like(q), torch.empty(1, device="cuda")
    with (
        pytest.raises(dm.MissingSpecialization, match="a CUDA graph is being captured, and nothing is compiled"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        attend(q, k, v, out=out, workspace=workspace)
    close(attend(q, k, v, out=out, workspace=workspace), expected(q, k, v))


def test_ragged_with_and_without_the_longest_lengths(attend: at.Attention) -> None:
    q, k, v = inputs()
    lengths = [torch.tensor([0, n, 2 * n], dtype=torch.int32, device="cuda") for n in (200, 300)]
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    for longest in ({}, {"max_seqlen_q": 200, "max_seqlen_k": 300}):
        out = attend(*flat, variant=at.Causal, cu_seqlens_q=lengths[0], cu_seqlens_k=lengths[1], **longest)
        close(out.view(2, 200, 8, 64), expected(q, k, v, causal=True))


def test_few_queries_with_and_without_a_workspace(attend: at.Attention) -> None:
    q, k, v = inputs(queries=3, keys=5000)
    size = at.workspace_size(q.shape, 64)
    for workspace in (None, torch.full((size,), float("nan"), device="cuda"), torch.empty(0, device="cuda")):
        close(attend(q, k, v, variant=at.Causal, workspace=workspace), expected(q, k, v, causal=True))


def test_graph_allocation_and_stream(attend: at.Attention) -> None:
    q, k, v = inputs(queries=3, keys=5000)
    out, workspace = torch.zeros_like(q), torch.empty(6_000_000, device="cuda")
    call = lambda: attend(q, k, v, out=out, workspace=workspace)  # noqa: E731
    call()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    call()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
        attend(q, k, v)  # allocates, from the graph's own memory
    q.copy_(torch.randn_like(q))
    graph.replay()
    close(out, expected(q, k, v))
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    attend(q, k, v, out=out.zero_(), workspace=workspace, stream=stream)
    stream.synchronize()
    close(out, expected(q, k, v))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU only")
def test_each_gpu_computes_what_lies_on_it(attend: at.Attention) -> None:
    """Whichever is current, with workspaces and streams of its own."""
    for shape in ({}, {"queries": 3, "keys": 5000}):
        here = inputs(**shape)
        there = [x.to("cuda:1") for x in here]
        reference = expected(*here, causal=True)
        for current in (0, 1):
            with torch.cuda.device(current):
                outs = [attend(*problem, variant=at.Causal) for problem in (here, there, here)]
                assert torch.cuda.current_device() == current
            assert [out.device.index for out in outs] == [0, 1, 0]
            for out in outs:
                close(out.to("cuda:0"), reference)
        stream = torch.cuda.Stream("cuda:1")
        torch.cuda.synchronize("cuda:1")
        out = attend(*there, variant=at.Causal, out=torch.zeros_like(there[0]), stream=stream)
        stream.synchronize()
        close(out.to("cuda:0"), reference)
    with pytest.raises(ValueError, match="argument 'k': expected a tensor on"):
        attend(there[0], here[1], there[2])
    with pytest.raises(ValueError, match="argument 'alibi_slopes': expected a tensor on cuda:1, got one on cuda:0"):
        attend(*there, variant=at.ALiBi(torch.ones(8, device="cuda:0")))


def test_compiled_without_a_break_and_checked_by_torch(attend: at.Attention) -> None:
    q, k, v = inputs()
    slopes = torch.rand(8, device="cuda")
    importlib.import_module("dimorph.attention.torch")  # makes the operator
    operator = torch.ops.dimorph.attention.default  # older torch cannot trace what makes a variant

    @torch.compile(fullgraph=True)  # type: ignore[untyped-decorator]
    def model(q: Any, k: Any, v: Any) -> Any:
        return operator(q, k, v, "Causal", [], [], [])[0] + operator(q, k, v, "ALiBi", [slopes], [], [])[0]

    plain = attend(q, k, v, variant=at.Causal) + attend(q, k, v, variant=at.ALiBi(slopes))
    assert (model(q, k, v) - plain).abs().max() <= 0.02
    torch.library.opcheck(operator, (q, k, v, "ALiBi", [slopes], [], []))


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason=f"torch {torch.__version__} is older than 2.13"
)
def test_the_function_compiles_without_a_break() -> None:
    q, k, v = inputs()
    compiled = torch.compile(lambda: at.attention(q, k, v, variant=at.Causal), fullgraph=True)
    assert (compiled() - at.attention(q, k, v, variant=at.Causal)).abs().max() <= 0.02


def test_what_does_not_fit_is_named(attend: at.Attention) -> None:
    q, k, v = inputs()
    with pytest.raises(ValueError, match="argument 'alibi_slopes': expected a tensor on cuda:0, got one on cpu:0"):
        attend(q, k, v, variant=at.ALiBi(np.ones(8, np.float32)))
    with pytest.raises(ValueError, match="argument 'k': expected a tensor on cuda:0, where 'q' is, got one on cpu:0"):
        attend(q, k.cpu(), v)
    with pytest.raises(TypeError, match=r"argument 'q': expected dtype bfloat16 or float16, got torch\.float32"):
        attend(q.float(), k.float(), v.float())
    for dim in (12, 264):
        odd = torch.zeros(1, 8, 2, dim, device="cuda", dtype=q.dtype)
        with pytest.raises(ValueError, match=f"'q': expected a head dim that is a multiple of 8, .* got {dim}"):
            attend(odd, odd, odd)
    shifted = torch.zeros(q.numel() + 1, device="cuda", dtype=q.dtype)[1:].view(q.shape)
    with pytest.raises(ValueError, match="argument 'q': expected an address that is a multiple of 16"):
        attend(shifted, k, v)


def test_large_scales(attend: at.Attention) -> None:
    """The largest logit takes all weight; beyond what can be right, the scale is refused."""
    q, k, v = inputs()
    logits = torch.einsum("bqhd,bkhd->bhqk", q.double(), k.double().repeat_interleave(4, 2))
    best = v.repeat_interleave(4, 2).transpose(1, 2).gather(2, logits.argmax(-1, keepdim=True).expand(-1, -1, -1, 64))
    for variant, scale in ((at.Plain(), 1e6), (at.SoftCap(3e38), 1e29)):
        out = attend(q, k, v, variant=variant, scale=scale).transpose(1, 2)
        near = (out - best).abs() <= 0.02 * best.abs()
        assert near.all(-1).double().mean() > 0.99  # float32 leaves a few ties
    with pytest.raises(ValueError, match="argument 'scale': expected a number from -1048576 to 1048576 on a GPU, got"):
        attend(q, k, v, scale=2e6)


def test_cupy_arrays(attend: at.Attention) -> None:
    cupy: Any = pytest.importorskip("cupy", reason="CuPy is not installed")
    q, k, v = (x.half() for x in inputs())
    out = attend(*(cupy.from_dlpack(x) for x in (q, k, v)))
    assert isinstance(out, cupy.ndarray)
    close(torch.from_dlpack(out), expected(q, k, v))
