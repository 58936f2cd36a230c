"""`plan` and `run`: what they refuse, and schedules of the sm90 family on the emulator (support/emulated.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from dimorph import attention as at
from dimorph.attention.kernels import GPU_FAMILIES
from dimorph.attention.workspace import fits_small_tile
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import Array
from support.emulated import EmulatedCache, Emulator, OnGpu, altered, missing

needs_emulator = pytest.mark.skipif(bool(missing()), reason=missing() or "it is there")


def problem(lengths: list[int], queries: int = 1, heads: int = 4, seed: int = 0) -> tuple[Array, at.KVCache]:
    """Return bfloat16 queries, and a cache with sequences of these lengths in pages of 8, among NaN."""
    rng = np.random.default_rng(seed)
    used = [-(-n // 8) for n in lengths]
    q = rng.standard_normal((len(lengths), queries, heads, 32)).astype(ml_dtypes.bfloat16)
    pools = rng.standard_normal((2, sum(used) + 2, 8, 2, 32)).astype(ml_dtypes.bfloat16)
    numbers = iter(rng.permutation(sum(used) + 2))
    table = np.full((len(lengths), max(used, default=0) + 1), 2**30, np.int32)
    for b, n in enumerate(lengths):
        table[b, : used[b]] = [next(numbers) for _ in range(used[b])]
        if n % 8:
            pools[:, table[b, used[b] - 1], n % 8 :] = np.nan
    return q, at.KVCache(*pools, block_table=table, seqlens=np.array(lengths, np.int32))


def test_a_plan_serves_other_numbers_of_its_lengths_only() -> None:
    q, cache = problem([5, 30, 0])
    plan = at.plan(q, cache, variant=at.Causal)
    assert np.array_equal(at.run(plan, 2 * q, cache), at.attention(2 * q, cache, variant=at.Causal))
    other, other_cache = problem([5, 30])
    tables = {"block_table": cache.block_table, "seqlens": cache.seqlens}
    for changed, said in (
        ((other, other_cache, {}), "made for q of shape \\(2, 1, 4, 32\\), got \\(3, 1, 4, 32\\)"),
        ((q.astype(np.float16), cache, {}), "made for q of dtype float16, got bfloat16"),
        ((q, cache, {"variant": at.Plain}), "made for variant Plain, got Causal"),
        ((q, at.KVCache(cache.k[:3], cache.v[:3], seqlens=cache.seqlens), {}), "page table none, got block_table"),
        ((q, at.KVCache(cache.k[:, :, :1], cache.v[:, :, :1], **tables), {}), "KV heads 1, got 2"),
    ):
        with pytest.raises(ValueError, match="run: argument 'plan': expected one made for") as error:
            at.run(plan, changed[0], changed[1], **changed[2])
        assert error.match(said)


def test_other_arguments_are_refused() -> None:
    q, cache = problem([5])
    wrong: Any = (q, cache)
    with pytest.raises(TypeError, match="run: argument 'plan': expected a Plan, got"):
        at.run(wrong, q, cache)
    with pytest.raises(TypeError, match="plan: argument 'cache': expected a KVCache, got"):
        at.plan(q, wrong)
    with pytest.raises(TypeError, match="run: argument 'cache': expected a KVCache, got"):
        at.run(at.plan(q, cache), q, wrong)
    with pytest.raises(ValueError, match="plan_size: argument 'sequences': expected their number"):
        at.plan_size((10, 4, 32), 2, 32)
    with pytest.raises(ValueError, match="plan_size: argument 'kv_heads': expected 1 or more, got 0"):
        at.plan_size((2, 1, 4, 32), 0, 32)


@pytest.mark.parametrize(
    ("group", "small"), [(1, True), (3, False), (4, True), (5, True), (6, False), (7, True), (8, True)]
)
def test_heads_share_a_tile_where_one_holds_whole_queries(group: int, small: bool) -> None:
    """Three heads do not fill 64 rows evenly, but 192; of five neither tile holds whole queries."""
    assert fits_small_tile(1, group) == small


def test_a_plan_has_the_parameters_of_a_run() -> None:
    q, cache = problem([5, 30])
    plan = at.plan(q, cache, variant=at.Window(3, 0))
    expected = at.attention(q, cache, variant=at.Window(20, 0), scale=0.5, return_lse=True)
    found = at.run(plan, q, cache, variant=at.Window(20, 0), scale=0.5, return_lse=True)
    assert all(np.array_equal(x, y) for x, y in zip(found, expected, strict=True))


HOST: dict[str, Any] = {"block_table": [[3, 99], [1, 4]], "seqlens": [4, 12]}  # of 5 pages of 8 keys
INDEX: dict[str, Any] = {"indptr": [0, 1, 3], "indices": [3, 1, 4], "last_page_len": [4, 3]}
NOT_FITTING: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "a negative length": (HOST | {"seqlens": [-1, 3]}, {}, ValueError, "'seqlens': expected a length from 0 to 16"),
    "keys behind the table": (
        HOST | {"seqlens": [4, 17]},
        {},
        ValueError,
        "'seqlens': expected a length from 0 to 16 for sequence 1, as it has room for, got 17",
    ),
    "a page that is none": (
        HOST | {"seqlens": [9, 3]},
        {},
        ValueError,
        "'block_table': expected a page from 0 to 4 as",
    ),
    "keys behind the room": ({"seqlens": [4, 9]}, {}, ValueError, "'seqlens': expected a length from 0 to 8 for seque"),
    "keys behind their room": (
        {"cu_seqlens": [0, 3, 30], "seqlens": [4, 9]},
        {},
        ValueError,
        "'seqlens': expected a length from 0 to 3 for sequence 0",
    ),
    "offsets that fall": ({"cu_seqlens": [0, 3, 2]}, {}, ValueError, "'cu_seqlens': expected offsets that never fall"),
    "offsets of more pages": (INDEX | {"indptr": [0, 1, 4]}, {}, ValueError, "'indptr': expected offsets up to 3, got"),
    "an empty last page": (INDEX | {"last_page_len": [4, 0]}, {}, ValueError, "'last_page_len': expected 1 to 8 keys"),
    "an index that is none": (INDEX | {"indices": [3, 1, 5]}, {}, ValueError, "'indices': expected a page from 0 to 4"),
    "queries behind the room": (HOST, {"seqlens_q": [1, 3]}, ValueError, "'seqlens_q': expected a length from 0 to 2"),
    "queries from 1 on": (HOST, {"cu_seqlens_q": [1, 2, 4]}, ValueError, "'cu_seqlens_q': expected offsets from 0 on"),
    "half a key": (HOST | {"seqlens": [4.5, 1]}, {}, TypeError, "'seqlens': expected whole numbers of 32 bits .n."),
    "wide numbers": (HOST | {"seqlens": [2**31, 1]}, {}, TypeError, "'seqlens': expected whole numbers of 32 bits"),
    "a flat table": (HOST | {"block_table": [3, 1]}, {}, TypeError, "'block_table': expected whole numbers of 32 bits"),
    "lengths in a table": (HOST | {"seqlens": [[4], [1]]}, {}, TypeError, "'seqlens': expected whole numbers of 32 bi"),
    "uneven tables": (HOST | {"block_table": [[3, 1], [1]]}, {}, TypeError, "'block_table': expected whole numbers of"),
}


KEYS, Q = (np.ones((n, size, 2, 32), np.float32) for n, size in ((7, 8), (3, 1)))


@pytest.mark.parametrize("of", [list, np.array])
@pytest.mark.parametrize("case", NOT_FITTING)
def test_lengths_on_the_host_are_checked(case: str, of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists beside any cache, and arrays beside one that is on a GPU."""
    tables, options, kind, said = NOT_FITTING[case]
    if of is np.array and case == "uneven tables":
        pytest.skip("NumPy makes no such array")
    keys, q = np.zeros((5, 8, 1, 32), np.float16), np.zeros((2, 2, 2, 32), np.float16)
    keys = keys.reshape(40, 1, 32) if "cu_seqlens" in tables else keys
    q = q.reshape(4, 2, 32) if "cu_seqlens_q" in options else q
    k, queries = (keys, q) if of is list else (OnGpu(keys, 0), OnGpu(q, 0))
    tables, options = ({name: of(x) for name, x in arrays.items()} for arrays in (tables, options))
    with pytest.raises(kind, match=f"plan: argument {said}"):
        at.plan(queries, at.KVCache(k, k, **tables), **options)


def test_a_plan_from_lists_has_a_cache_of_arrays() -> None:
    q, cache = problem([5, 30, 0], 3)
    lists = at.KVCache(cache.k, cache.v, block_table=cache.block_table.tolist(), seqlens=[5, 30, 0])
    flat, offsets = q.reshape(9, 4, 32)[:7], [0, 3, 7, 7]
    plan = at.plan(flat, lists, variant=at.Causal, cu_seqlens_q=offsets)
    expected = at.attention(flat, cache, variant=at.Causal, cu_seqlens_q=np.array(offsets, np.int32))
    assert plan.max_seqlen_q == 4 and plan.cache.k is cache.k
    assert np.array_equal(at.run(plan, flat, plan.cache), expected)
    tensor, k, table, lengths = map(torch.from_numpy, (Q, KEYS, cache.block_table, cache.seqlens))
    with torch.no_grad():
        plan = at.plan(tensor, at.KVCache(k, k, block_table=table.tolist(), seqlens=(5, 30, 0)))
        expected = at.attention(tensor, at.KVCache(k, k, block_table=table, seqlens=lengths))
        assert plan.cache.seqlens.dtype == torch.int32 and torch.equal(at.run(plan, tensor, plan.cache), expected)


@pytest.fixture
def emulated(emulator: Emulator, shared_store: Path, monkeypatch: pytest.MonkeyPatch) -> EmulatedCache:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)
    return EmulatedCache(emulator, "sm_90a", shared_store)


def on_gpu(cache: at.KVCache) -> at.KVCache:
    tables = {"block_table": OnGpu(cache.block_table, 1), "seqlens": OnGpu(cache.seqlens, 1)}
    return at.KVCache(OnGpu(cache.k, 1), OnGpu(cache.v, 1), **tables)


def workspace_for(q: Array) -> Array:
    array = np.full(at.plan_size(q.shape, 2, 32) + 3, np.nan, np.float32)
    return array[-array.ctypes.data // 4 % 4 :][: at.plan_size(q.shape, 2, 32)]


@needs_emulator
@pytest.mark.parametrize("queries", [1, 40])
def test_one_workspace_serves_any_lengths_one_after_the_other(emulated: EmulatedCache, queries: int) -> None:
    """Each plan is made over what the one before left; the lengths of a batch change, down to none."""
    rng = np.random.default_rng(queries)
    workspace = None
    for cycle in range(24):
        lengths = [int(n) for n in rng.integers(0, 700 if cycle % 3 else 40, 5)]
        q, cache = problem([*lengths, 0] if cycle else [700] * 6, queries, seed=cycle)
        workspace = workspace_for(q) if workspace is None else workspace
        if cycle % 4 == 1:
            workspace[:] = np.nan
        out = np.full(q.shape, np.nan, q.dtype)
        plan = emulated.attend.plan(OnGpu(q, 1), on_gpu(cache), variant=at.Causal, workspace=OnGpu(workspace, 1))
        for _ in range(2):  # a plan serves several runs
            out[:] = np.nan
            emulated.attend.run(plan, OnGpu(q, 1), on_gpu(cache), out=OnGpu(out, 1))
            expected = at.attention(q, cache, variant=at.Causal).astype(np.float32)
            assert np.allclose(out.astype(np.float32), expected, atol=0.02, rtol=0.02), lengths


@needs_emulator
@pytest.mark.parametrize("batch_invariant", [False, True])
def test_a_sequence_without_keys_may_come_first(
    emulated: EmulatedCache, monkeypatch: pytest.MonkeyPatch, batch_invariant: bool
) -> None:
    """Where pieces consist of whole query tiles, one without keys belongs to a piece too."""
    monkeypatch.setenv("EMULATED_MULTIPROCESSORS", "1")  # several waves
    q, cache = problem([0, 300, 300, 300], queries=40)
    out = np.full(q.shape, np.nan, q.dtype)
    size = at.plan_size(q.shape, 2, 32, batch_invariant=batch_invariant)
    workspace = np.full(size + 3, np.nan, np.float32)
    workspace = workspace[-workspace.ctypes.data // 4 % 4 :]
    given = {"out": OnGpu(out, 1), "workspace": OnGpu(workspace, 1), "batch_invariant": batch_invariant}
    emulated.attend(OnGpu(q, 1), on_gpu(cache), variant=at.Causal, **given)
    expected = at.attention(q, cache, variant=at.Causal).astype(np.float32)
    assert np.allclose(out.astype(np.float32), expected, atol=0.02, rtol=0.02)


@needs_emulator
def test_a_workspace_that_is_too_small_is_refused_and_not_written(emulated: EmulatedCache) -> None:
    q, cache = problem([100, 3])
    small = workspace_for(q)[: 4 * 200].copy()
    small[:] = 7
    out = np.full(q.shape, 7, q.dtype)
    for call in (
        lambda: emulated.attend.plan(OnGpu(q, 1), on_gpu(cache), workspace=OnGpu(small, 1)),
        lambda: emulated.attend(OnGpu(q, 1), on_gpu(cache), workspace=OnGpu(small, 1), out=OnGpu(out, 1)),
    ):
        with pytest.raises(ValueError, match=r"argument 'workspace': expected at least [0-9]+ elements, as plan_size"):
            call()
    assert (small == 7).all()
    assert (out == 7).all()


class Namespace:
    """As much of an array library as makes an array."""

    int32 = np.int32

    def asarray(self, numbers: Any, *, dtype: Any, device: int) -> Known:
        return Known(np.asarray(numbers, dtype), device)


class Known(OnGpu):
    """An array on a GPU, of a library that makes others there."""

    @property
    def device(self) -> int:
        return self.gpu

    def __array_namespace__(self) -> Namespace:
        return Namespace()


@needs_emulator
@pytest.mark.parametrize("of", [list, np.array, torch.tensor])
def test_a_plan_from_lengths_on_the_host(emulated: EmulatedCache, of: Any) -> None:
    q, cache = problem([300, 5, 0, 77], 2)
    tables = {"block_table": of(cache.block_table.tolist()), "seqlens": of(cache.seqlens.tolist())}
    host, queries = at.KVCache(Known(cache.k, 1), Known(cache.v, 1), **tables), Known(q, 1)
    plan = emulated.attend.plan(queries, host, variant=at.Causal, workspace=OnGpu(workspace_for(q), 1))
    assert type(plan.cache.seqlens) is type(plan.cache.block_table) is Known
    out = np.full(q.shape, np.nan, q.dtype)
    emulated.attend.run(plan, queries, plan.cache, out=OnGpu(out, 1))
    expected = at.attention(q, cache, variant=at.Causal).astype(np.float32)
    assert np.allclose(out.astype(np.float32), expected, atol=0.02, rtol=0.02)
    with pytest.raises(ValueError, match="expected a tensor on cuda:1, where 'q' is, got one on cpu"):
        emulated.attend.run(plan, queries, replace(cache, k=host.k, v=host.v), out=OnGpu(out, 1))


@needs_emulator
def test_a_plan_is_for_one_device(emulated: EmulatedCache) -> None:
    q, cache = problem([100, 3])
    plan = emulated.attend.plan(OnGpu(q, 1), on_gpu(cache), workspace=OnGpu(workspace_for(q), 1))
    elsewhere = at.KVCache(
        *(OnGpu(x, 0) for x in (cache.k, cache.v)), block_table=cache.block_table, seqlens=cache.seqlens
    )
    out = np.full(q.shape, 7, q.dtype)
    for given, made, name in ((OnGpu(q, 0), elsewhere, 0), (q, cache, None)):
        with pytest.raises(ValueError, match=f"'plan': expected one made for device {name}, got 1"):
            emulated.attend.run(plan, given, made, out=OnGpu(out, 0))
    with pytest.raises(ValueError, match="'plan': expected one made for device 1, got None"):
        at.run(at.plan(q, cache), OnGpu(q, 1), on_gpu(cache))
    with pytest.raises(ValueError, match="'k': expected a tensor on cuda:1, where 'q' is, got one on cuda:0"):
        emulated.attend.run(plan, OnGpu(q, 1), replace(on_gpu(cache), k=OnGpu(cache.k, 0)), out=OnGpu(out, 1))
    with pytest.raises(ValueError, match="'workspace': expected a tensor on cuda:1, where 'q' is, got one on cuda:0"):
        emulated.attend.plan(OnGpu(q, 1), on_gpu(cache), workspace=OnGpu(workspace_for(q), 0))
    assert (out == 7).all()


@needs_emulator
@pytest.mark.parametrize("name", ["q", "k", "v", "out", "lse", "cu_seqlens_q", "block_table", "seqlens"])
def test_a_workspace_shares_no_memory(emulated: EmulatedCache, name: str) -> None:
    """Partial results would be written over it."""
    q, cache = problem([100, 3])
    flat = q.reshape(2, 4, 32)
    arrays: dict[str, Any] = {
        "q": flat,
        "k": cache.k,
        "v": cache.v,
        "out": np.zeros_like(flat),
        "lse": np.zeros(flat.shape[:2], np.float32),
        "cu_seqlens_q": np.array([0, 1, 2], np.int32),
        "block_table": cache.block_table,
        "seqlens": cache.seqlens,
    }
    workspace = workspace_for(q)
    within = workspace[64:].view(np.uint8)[: arrays[name].nbytes].view(arrays[name].dtype).reshape(arrays[name].shape)
    within[:] = arrays[name]
    moved = {key: OnGpu(within if key == name else x, 1) for key, x in arrays.items()}
    tables = {key: moved.pop(key) for key in ("k", "v", "block_table", "seqlens")}
    before = within.copy()
    with pytest.raises(ValueError, match=f"argument 'workspace': expected memory of its own, got that of '{name}'"):
        emulated.attend(moved.pop("q"), at.KVCache(**tables), workspace=OnGpu(workspace, 1), return_lse=True, **moved)
    assert within.tobytes() == before.tobytes()


FAULTS = {
    "a merge before the last part": ("sm90/paged/finish_part.h", "== parts - 1", "== parts - 2"),
    "a piece of its neighbour": ("sm90/paged/work_tiles.h", "at_end ? end.skip - skip", "at_end ? end.skip"),
    "a part too many": ("gpu/schedule.cu", "cut.first = cut.last = thread;", "cut.first = cut.last = thread + 1;"),
    "one part fewer": ("gpu/merge_row.h", "first + i >= parts ||", "first + i >= parts - 1 ||"),
}


@needs_emulator
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(
    emulated: EmulatedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    family = GPU_FAMILIES["sm90"]
    assert family.paged
    monkeypatch.setitem(GPU_FAMILIES, "sm90", family._replace(paged=altered(tmp_path, family.paged, *FAULTS[fault])))

    def wrong(queries: int, lengths: list[int]) -> bool:
        q, cache = problem(lengths, queries)
        out, _ = emulated(q, cache, variant=at.Plain())
        expected = at.attention(q, cache).astype(np.float32)
        return not np.allclose(out.astype(np.float32), expected, atol=0.02, rtol=0.02)

    # The first one ends it.
    assert wrong(1, [900, 20, 0, 333, 700, 64]) or wrong(200, [900, 640, 333] * 4)
