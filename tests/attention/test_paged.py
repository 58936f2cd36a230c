"""attention over a `KVCache` on the CPU: keys in pages, and lengths apart from the room of sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import dimorph as dm
from dimorph import attention as at
from dimorph import settings
from dimorph.attention import KVCache, select
from dimorph.attention.kernels import paged_cpu
from dimorph.attention.variants.compose import composition
from support.attention_configs import Specialization
from support.attention_forms import attention_in
from support.emulated import altered
from support.every_hook import CACHES, EVERY_HOOK, QUERIES, check
from support.paged import SPECIALIZATIONS, failures, for_one_kernel, paged_config

pytestmark = pytest.mark.usefixtures("warm_store")

PROBLEMS, CHUNKS = 500, 5
CONFIGS = sorted(
    (for_one_kernel(paged_config(seed)) for seed in range(PROBLEMS)), key=lambda config: repr(config.specialization)
)
BUILT = (Specialization("float32", (32, 32), ("Causal",)), Specialization("bfloat16", (64, 64), ("Plain",)))
SIZE = 16  # of a page, below
KEYS = np.array([20, 60], np.int32)
TABLE = np.array([[4, 3, -1, 99], [5, 6, 7, 0]], np.int32)
INDEX = {"indptr": np.array([0, 2, 6]), "indices": np.array([4, 3, 5, 6, 7, 0]), "last_page_len": np.array([4, 12])}
INDEX = {name: array.astype(np.int32) for name, array in INDEX.items()}


def queries(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


Q, POOL = queries(2, 3, 4, 32), queries(9, SIZE, 2, 2, 32)  # keys and values in one array
K, V = POOL[:, :, 0], POOL[:, :, 1]
ROOM = queries(2, 64, 2, 32)


def rows(pool: Any, b: int) -> Any:
    """Return the keys or values of sequence b as a dense array."""
    return pool[TABLE[b, : -(-KEYS[b] // SIZE)]].reshape(1, -1, *pool.shape[2:])[:, : KEYS[b]]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_100_random_problems(chunk: int, attend: at.Attention) -> None:
    size = PROBLEMS // CHUNKS
    failed = failures(attend, CONFIGS[chunk * size : (chunk + 1) * size])
    assert not failed, f"{len(failed)} of {size} failed:\n" + "\n".join(failed)


def test_the_random_problems_have_every_variant() -> None:
    names = {part for one in SPECIALIZATIONS for part in one.variant}
    assert {name for name in at.builtin.__all__ if isinstance(getattr(at, name), dm.Variant)} <= names
    gpus = {one.head_dims for one in SPECIALIZATIONS if one.dtype != "float32"}
    assert {(192, 128), (128, 64), (64, 128)} <= gpus, "keys and values with head dims of their own"


@pytest.mark.parametrize("form", ["jit", "aot"])
def test_both_forms(form: str, shared_store: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    user = [name for one in BUILT for name in one.variant]
    ahead = [
        paged_cpu.instantiations(dtype=one.dtype, head_dims=one.head_dims, kv_dtype="as_q", variant=getattr(at, name))
        for one, name in zip(BUILT, user, strict=True)
    ]
    own = attention_in(form, shared_store, tmp_path_factory, ahead)
    failed = failures(own, [paged_config(seed, BUILT) for seed in range(900, 940)])
    assert not failed, "\n".join(failed)


@pytest.fixture(scope="module", params=["jit", "aot"])
def either_form(
    request: pytest.FixtureRequest, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> at.Attention:
    """The operation for the user's variant with every hook, alone and in a composition."""
    together = composition(at.SoftCap, EVERY_HOOK, at.Window)
    ahead = [
        paged_cpu.instantiations(dtype="float32", head_dims=(32, 32), variant=variant)
        for variant in (EVERY_HOOK, together)
    ]
    return attention_in(request.param, shared_store, tmp_path_factory, ahead)


@pytest.mark.parametrize("composed", [False, True])
@pytest.mark.parametrize("queries", QUERIES)
@pytest.mark.parametrize("kind", CACHES)
def test_every_hook_of_a_users_variant(either_form: at.Attention, kind: str, queries: str, composed: bool) -> None:
    check(either_form, np.float32, kind, queries, composed=composed, most=2e-5)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("queries", QUERIES)
def test_every_hook_in_other_dtypes(attend: at.Attention, dtype: Any, queries: str) -> None:
    for kind in CACHES:
        check(attend, dtype, kind, queries, composed=True, most=4e-3 if dtype == np.float16 else 4e-2)


def test_a_users_check_of_parameters_runs_beside_a_cache() -> None:
    """And the sizes of its tensors are those of the room."""
    cache = KVCache(K, V, block_table=TABLE, seqlens=KEYS)
    sizes = {"temperatures": 2, "key_bias": (2, 64, 2), "first_terms": 4, "last_terms": (2, 3), "gates": (2, 3, 4)}
    good = {name: np.ones(size, np.float32) for name, size in sizes.items()}
    at.attention(Q, cache, variant=EVERY_HOOK(*good.values()))
    for name, size, said in (
        ("temperatures", 2, "expected positive numbers, got -1"),
        ("key_bias", (2, 60, 2), r"expected shape \[\*keys, kv_heads\], here \(2, 64, 2\), got \(2, 60, 2\)"),
        ("gates", (2, 4, 3), r"expected shape \[\*queries, heads\], here \(2, 3, 4\), got \(2, 4, 3\)"),
    ):
        bad = good | {name: np.full(size, -1, np.float32)}
        with pytest.raises(ValueError, match=f"attention: argument '{name}': {said}"):
            at.attention(Q, cache, variant=EVERY_HOOK(*bad.values()))


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("count", [3, 70])
def test_pages_change_no_bit(dtype: Any, count: int) -> None:
    q, k, v = (x.astype(dtype) for x in (queries(2, count, 4, 32), K, V))
    for cache in (KVCache(k, v, block_table=TABLE, seqlens=KEYS), KVCache(k, v, **INDEX)):
        out, lse = at.attention(q, cache, variant=at.Causal, return_lse=True)
        for b in range(2):
            expected = at.attention(q[b : b + 1], rows(k, b), rows(v, b), variant=at.Causal, return_lse=True)
            assert out[b].tobytes() == expected[0].tobytes()
            assert lse[b].tobytes() == expected[1].tobytes()


def test_keys_and_values_are_views_of_one_array() -> None:
    expected = at.attention(Q, KVCache(K.copy(), V.copy(), block_table=TABLE, seqlens=KEYS))
    assert np.array_equal(at.attention(Q, KVCache(K, V, block_table=TABLE, seqlens=KEYS)), expected)
    heads_first = np.ascontiguousarray(POOL.transpose(0, 2, 3, 1, 4))  # [pages, 2, kv_heads, page_size, head_dim]
    cache = KVCache(heads_first[:, 0], heads_first[:, 1], block_table=TABLE, seqlens=KEYS, layout="HND")
    assert np.array_equal(at.attention(Q, cache), expected)
    k, v = torch.from_numpy(POOL).unbind(2)
    table, lengths = torch.from_numpy(TABLE), torch.from_numpy(KEYS)
    out = at.attention(torch.from_numpy(Q), KVCache(k, v, block_table=table, seqlens=lengths))
    assert np.array_equal(out.numpy(), expected)


def test_a_plain_cache_is_its_keys_and_values() -> None:
    offsets, tokens = np.array([0, 64, 128], np.int32), ROOM.reshape(128, 2, 32)
    expected = at.attention(Q, ROOM, ROOM, variant=at.Causal)
    assert np.array_equal(at.attention(Q, KVCache(ROOM, ROOM), variant=at.Causal), expected)
    ragged = at.attention(
        Q.reshape(6, 4, 32), KVCache(tokens, tokens, cu_seqlens=offsets), variant=at.Causal,
        cu_seqlens_q=np.array([0, 3, 6], np.int32),
    )  # fmt: skip
    assert np.array_equal(ragged.reshape(Q.shape), expected)
    mixed = at.attention(Q, KVCache(tokens, tokens, cu_seqlens=offsets), variant=at.Causal)
    assert np.array_equal(mixed, expected)


def test_lengths_of_queries_without_a_cache() -> None:
    out, lse = at.attention(Q, ROOM, ROOM, variant=at.Causal, seqlens_q=np.array([2, 0], np.int32), return_lse=True)
    assert np.array_equal(out[:1, :2], at.attention(Q[:1, :2], ROOM[:1], ROOM[:1], variant=at.Causal))
    assert (out[0, 2:] == 0).all() and (out[1] == 0).all()
    assert np.isneginf(lse[0, 2:]).all() and np.isneginf(lse[1]).all()


@pytest.mark.parametrize("count", [[1, 3], [2, 70], [32, 0]])
def test_the_room_of_queries_changes_no_bit(count: list[int]) -> None:
    q = queries(2, 200, 4, 32)
    for cache in (KVCache(K, V, block_table=TABLE, seqlens=KEYS), KVCache(ROOM, ROOM, seqlens=KEYS)):
        results = [
            at.attention(q[:, :room], cache, seqlens_q=np.array(count, np.int32), return_lse=True)
            for room in (max(count), 200)
        ]
        for b, n in enumerate(count):
            k, v = (rows(x, b) for x in (K, V)) if cache.block_table is not None else [ROOM[b : b + 1, : KEYS[b]]] * 2
            out, lse = at.attention(q[b : b + 1, :n], k, v, return_lse=True)
            for given_out, given_lse in results:
                assert given_out[b, :n].tobytes() == out[0].tobytes()
                assert given_lse[b, :n].tobytes() == lse[0].tobytes()


def test_only_rows_that_are_located_are_prefetched(
    tmp_path: Path, shared_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The places of two tiles are known. Here those behind them are marked, and reading one is an error."""
    kernel = paged_cpu
    for i, (old, new) in enumerate(
        (
            ("key_offsets[2 * TILE_KEYS + 1], value_offsets[2 *", "key_offsets[4 * TILE_KEYS], value_offsets[4 *"),
            (
                "const int count =",
                "for (int i = 2 * TILE_KEYS; i < 4 * TILE_KEYS; ++i) key_offsets[i] = -1;\nconst int count =",
            ),
            ("return pool + *offsets;", 'DIMORPH_CHECK(*offsets != -1, "an unknown place");\nreturn pool + *offsets;'),
        )
    ):
        kernel = altered(tmp_path / str(i), kernel, "cpu/key_rows.h", old, new)
    monkeypatch.setattr(select, "paged_cpu", kernel)
    attend = at.Attention(policy="jit", settings=replace(settings.current(), store=shared_store))
    table, lengths = np.arange(9, dtype=np.int32)[None], np.array([9 * SIZE], np.int32)
    for q in (queries(1, 70, 4, 32), queries(1, 2000, 4, 32)):
        out = attend(q, KVCache(K, V, block_table=table, seqlens=lengths))
        assert np.array_equal(out, at.attention(q, K.reshape(1, -1, 2, 32), V.reshape(1, -1, 2, 32)))


def test_sizes_of_0() -> None:
    nothing, some = np.zeros((0, 0), np.int32), np.zeros(0, np.int32)
    assert at.attention(Q[:0], KVCache(K, V, block_table=nothing, seqlens=some)).shape == (0, 3, 4, 32)
    empty = KVCache(K[:0], V[:0], block_table=np.zeros((2, 0), np.int32), seqlens=np.zeros(2, np.int32))
    for cache in (empty, KVCache(K, V, **INDEX | {"indptr": np.zeros(3, np.int32)})):
        out, lse = at.attention(Q, cache, return_lse=True)
        assert (out == 0).all() and np.isneginf(lse).all()


def test_mixed_batches_are_computed_by_both_kernels() -> None:
    q = queries(1 + 70, 4, 32)
    out = at.attention(q, KVCache(K, V, **INDEX), variant=at.Causal, cu_seqlens_q=np.array([0, 1, 71], np.int32))
    for b, part in enumerate((slice(0, 1), slice(1, 71))):
        expected = at.attention(q[None, part], rows(K, b), rows(V, b), variant=at.Causal)[0]
        assert np.array_equal(out[part], expected)


def changed(name: str, index: Any, value: int) -> dict[str, Any]:
    """Return the arguments of a table in which one number is another one."""
    arrays = INDEX if name in INDEX else {"block_table": TABLE, "seqlens": KEYS}
    array = arrays[name].copy()
    array[index] = value
    return arrays | {name: array}


REFUSED = {
    "a length beyond the table": (changed("seqlens", 1, 65), "'seqlens': expected a length from 0 to 64 for seq"),
    "a negative length": (changed("seqlens", 0, -1), "'seqlens': expected a length from 0 to 64 for sequence 0"),
    "a used entry that is no page": (
        changed("seqlens", 0, 33),
        "'block_table': expected a page from 0 to 8 as number 2 of sequence 0, got -1",
    ),
    "a page behind the pool": (
        changed("block_table", (1, 3), 9),
        "'block_table': expected a page from 0 to 8 as number 3 of sequence 1, got 9",
    ),
    "an index behind the pool": (changed("indices", 5, 9), "'indices': expected a page from 0 to 8 as number 3 of"),
    "a negative index": (changed("indices", 0, -1), "'indices': expected a page from 0 to 8 as number 0 of sequence 0"),
    "offsets behind the indices": (changed("indptr", 2, 7), "'indptr': expected offsets up to 6"),
    "offsets that fall": (changed("indptr", 1, 7), "'indptr': expected offsets that never fall"),
    "offsets from 1": (changed("indptr", 0, 1), "'indptr': expected 0 first"),
    "an empty last page": (changed("last_page_len", 0, 0), "'last_page_len': expected 1 to 16 keys for sequence 0"),
    "too full a last page": (changed("last_page_len", 1, 17), "'last_page_len': expected 1 to 16 keys for sequence 1"),
    "lengths of another batch": ({"block_table": TABLE, "seqlens": KEYS[:1]}, "'seqlens': expected size 2 in dim"),
    "a table of another batch": ({"block_table": TABLE[:1], "seqlens": KEYS}, "'block_table': expected size 2 in dim"),
    "a flat table": ({"block_table": TABLE[0], "seqlens": KEYS}, r"'block_table': expected \[batch, max_pages\]"),
    "a transposed table": ({"block_table": TABLE.T.copy().T, "seqlens": KEYS}, r"'block_table': expected \[batch, max"),
    "strided lengths": ({"block_table": TABLE, "seqlens": np.repeat(KEYS, 2)[::2]}, "'seqlens': expected a contiguous"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tables_are_checked(case: str) -> None:
    tables, said = REFUSED[case]
    out = np.full_like(Q, 7.0)
    with pytest.raises(ValueError, match=f"attention: argument {said}"):
        at.attention(Q, KVCache(K, V, **tables), out=out)
    assert (out == 7.0).all()


def test_a_sequence_has_at_most_a_length_that_kernels_count() -> None:
    """Not all of them together, which may share pages."""
    pool = np.lib.stride_tricks.as_strided(np.zeros((1, 1, 1, 32), np.float32), (1, 2**20, 1, 32), (0, 0, 0, 4))
    indices, last, q = np.zeros(600, np.int32), np.array([5], np.int32), queries(1, 1, 1, 32)
    for ends in ([0, 1], [0, 600]):
        cache = KVCache(pool, pool, indptr=np.array(ends, np.int32), indices=indices, last_page_len=last)
        if ends[-1] == 1:
            assert (at.attention(q, cache) == 0).all()
            continue
        with pytest.raises(ValueError, match="'indices': expected at most 536870912 keys of a sequence, got 600 pages"):
            at.attention(q, cache)
    cache = KVCache(pool, pool, block_table=indices[None], seqlens=last)
    with pytest.raises(ValueError, match="'block_table': expected at most 536870912 keys of a sequence, got 600 pages"):
        at.attention(q, cache)


@pytest.mark.parametrize("name", ["block_table", "seqlens", *INDEX])
def test_tables_are_int32(name: str) -> None:
    tables = changed(name, 0, 1)
    with pytest.raises(TypeError, match=f"attention: argument '{name}': expected dtype int32, got int64"):
        at.attention(Q, KVCache(K, V, **tables | {name: tables[name].astype(np.int64)}))


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (ValueError, {"layout": "NDH"}, "'layout': expected 'NHD' or 'HND', got 'NDH'"),
        (ValueError, {"block_table": TABLE}, "'seqlens': expected an int32 array, as 'block_table' is given"),
        (
            ValueError,
            {"indptr": KEYS, "indices": KEYS},
            "'last_page_len': expected an int32 array, as 'indptr' is given",
        ),
        (ValueError, {"last_page_len": KEYS}, "'indptr': expected an int32 array, as 'last_page_len' is given"),
        (ValueError, INDEX | {"seqlens": KEYS}, "'seqlens': expected none, as 'indptr' is given"),
        (ValueError, INDEX | {"block_table": TABLE}, "'block_table': expected none, as 'indptr' is given"),
        (ValueError, {"cu_seqlens": KEYS, "layout": "HND"}, "'cu_seqlens': expected none beside layout='HND'"),
        (ValueError, INDEX | {"cu_seqlens": KEYS}, "'cu_seqlens': expected none beside indptr"),
    ],
)
def test_what_does_not_belong_together(kind: type[Exception], arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(kind, match=f"KVCache: argument {said}"):
        KVCache(**{"k": K, "v": V} | arguments)


def test_a_cache_takes_the_place_of_keys_and_values() -> None:
    cache = KVCache(K, V, block_table=TABLE, seqlens=KEYS)
    with pytest.raises(TypeError, match="attention: argument 'v': expected none beside a KVCache"):
        at.attention(Q, cache, V)
    with pytest.raises(TypeError, match="attention: argument 'cu_seqlens_k': expected none beside a KVCache"):
        at.attention(Q, cache, cu_seqlens_k=KEYS)
    for values in ({}, {"seqlens_q": KEYS}):
        with pytest.raises(TypeError, match="'v': expected a KVCache as 'k', or keys and values, got None beside keys"):
            at.attention(Q, K, **values)
    with pytest.raises(
        ValueError, match="attention: argument 'seqlens_q': expected a length from 0 to 3 for sequence 0"
    ):
        at.attention(Q, cache, seqlens_q=np.array([4, 0], np.int32))
    with pytest.raises(ValueError, match=r"attention: argument 'k': expected \[pages, page_size, heads, head_dim\]"):
        at.attention(Q, replace(cache, k=K[0]))
    with pytest.raises(
        ValueError, match=r"attention: argument 'v': expected size 9 in dimension 0 \(the pages of 'k'\)"
    ):
        at.attention(Q, replace(cache, v=V[:8]))


class NamedCache(KVCache):
    """A cache of a user's own type."""


def test_a_subclass_of_a_cache_is_a_cache() -> None:
    tables = {"block_table": TABLE, "seqlens": KEYS}
    expected = at.attention(Q, KVCache(K, V, **tables))
    assert np.array_equal(at.attention(Q, NamedCache(K, V, **tables)), expected)
    assert np.array_equal(at.attention(Q, NamedCache(ROOM, ROOM)), at.attention(Q, ROOM, ROOM))
    with pytest.raises(TypeError, match="attention: argument 'v': expected none beside a KVCache"):
        at.attention(Q, NamedCache(K, V, **tables), V)


def test_results_are_apart_from_tables() -> None:
    table = np.zeros((2, 3, 4, 32), np.int32)
    out = table.view(np.float32)
    with pytest.raises(
        ValueError, match="attention: argument 'out': expected memory of its own, got that of 'block_tab"
    ):
        at.attention(Q, KVCache(K, V, block_table=table[:, 0, 0], seqlens=KEYS), out=out)


def test_torch_transforms_are_refused() -> None:
    k, v = torch.from_numpy(POOL).unbind(2)
    q, table, lengths = torch.from_numpy(Q), torch.from_numpy(TABLE), torch.from_numpy(KEYS)

    def call(q: torch.Tensor) -> Any:
        return at.attention(q, KVCache(k, v, block_table=table, seqlens=lengths))

    with pytest.raises(NotImplementedError, match=r"attention_cached: not supported under torch\.vmap"):
        torch.func.vmap(call)(q[None])
    with pytest.raises(RuntimeError, match="argument 'q': expected a tensor that requires no grad"):
        call(q.clone().requires_grad_())
