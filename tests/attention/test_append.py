"""`append`: new keys and values at their positions in dense, ragged and paged caches."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from dimorph import attention as at
from dimorph.attention import KVCache
from support.appends import append_problem, check

pytestmark = pytest.mark.usefixtures("warm_store")

SIZE = 3  # of a page
TABLE = np.array([[4, 1, -1], [5, 6, 7]], np.int32)
INDEX = {
    "indptr": np.array([0, 2, 5], np.int32),
    "indices": np.array([4, 1, 5, 6, 7], np.int32),
    "last_page_len": np.array([1, 1], np.int32),
}
LENGTHS = np.array([4, 7], np.int32)
POSITIONS = np.array([[0, 3], [8, 2]], np.int32)
# Shape of the cache's keys without heads and head dim, its other arguments, and the places of POSITIONS in it.
PAGES = [[(4, 0), (1, 0)], [(7, 2), (5, 2)]]
KINDS: dict[str, tuple[tuple[int, ...], dict[str, Any], list[list[tuple[int, ...]]]]] = {
    "block_table": ((8, SIZE), {"block_table": TABLE, "seqlens": LENGTHS}, PAGES),
    "indptr": ((8, SIZE), INDEX, PAGES),
    "dense": ((2, 9), {}, [[(0, 0), (0, 3)], [(1, 8), (1, 2)]]),
    "ragged": ((14,), {"cu_seqlens": np.array([0, 5, 14], np.int32)}, [[(0,), (3,)], [(13,), (7,)]]),
}


def rows(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal((*shape, 2, 20), dtype=np.float32)


K, V = rows(2, 2), -rows(2, 2)[..., :12]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ragged", [False, True])
def test_rows_come_to_their_places(kind: str, layout: str, dtype: Any, ragged: bool) -> None:
    if kind == "ragged" and layout == "HND":
        pytest.skip("ragged arrays have one layout")
    shape, tables, places = KINDS[kind]
    k, v = K.astype(dtype), V.astype(dtype)
    arrays, expected = [], []
    for new in (k, v):
        array = np.full((*shape, *new.shape[2:]), 7, dtype)
        wanted = array.copy()
        for b in range(2):
            for i in range(2):
                wanted[places[b][i]] = new[b, i]
        expected.append(wanted)
        arrays.append(np.ascontiguousarray(array.swapaxes(1, 2)) if layout == "HND" else array)
    more: dict[str, Any] = {}
    positions = POSITIONS
    if ragged:  # the same rows
        k, v, positions = k.reshape(4, 2, 20), v.reshape(4, 2, 12), POSITIONS.reshape(4)
        more = {"cu_seqlens": np.array([0, 2, 4], np.int32)}
    at.append(KVCache(*arrays, layout=layout, **tables), k, v, positions, **more)
    for array, wanted in zip(arrays, expected, strict=True):
        found = array.swapaxes(1, 2) if layout == "HND" else array
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_random_appends(dtype: str) -> None:
    found = [
        check(append_problem(seed, [dtype]), move=lambda x: x, wrap=lambda x: x, back=lambda x, _: x)
        for seed in range(100)
    ]
    assert not any(found), "\n".join(filter(None, found))


def test_decoding_token_by_token_is_attention_over_all() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 9, heads, 32), dtype=np.float32) for heads in (4, 2, 2))
    pool = torch.full((8, SIZE, 2, 2, 32), float("nan"))
    table = torch.tensor([[4, 1, 0], [5, 6, 7]], dtype=torch.int32)
    for step in range(9):
        lengths = torch.full((2,), step + 1, dtype=torch.int32)
        cache = KVCache(pool[:, :, 0], pool[:, :, 1], block_table=table, seqlens=lengths)
        new = slice(step, step + 1)
        with torch.no_grad():
            at.append(cache, torch.from_numpy(k[:, new]), torch.from_numpy(v[:, new]), lengths[:, None] - 1)
            out = at.attention(torch.from_numpy(q[:, new]), cache, variant=at.Causal)
        expected = at.attention(q[:, new], k[:, : step + 1], v[:, : step + 1], variant=at.Causal)
        assert np.array_equal(out.numpy(), expected)


def changed(name: str, value: Any) -> dict[str, Any]:
    return {"k": K, "v": V, "positions": POSITIONS, name: value}


REFUSED = {
    "a position behind the room": (changed("positions", POSITIONS + 1), ValueError, "'positions': expected a position"),
    "a page that is none": (
        changed("positions", np.add(POSITIONS, [[6], [0]], dtype=np.int32)),
        ValueError,
        "'block_table': expected a page",
    ),
    "wide positions": (
        changed("positions", POSITIONS.astype(np.int64)),
        TypeError,
        "'positions': expected dtype int32",
    ),
    "fewer positions": (
        changed("positions", POSITIONS[:, :1].copy()),
        ValueError,
        "'positions': expected size 2 in dim",
    ),
    "flat positions": (changed("positions", POSITIONS[0]), ValueError, "'positions': expected a contiguous tensor"),
    "another dtype": (changed("k", K.astype(np.float16)), TypeError, "'k': expected the dtype of the cache, float32"),
    "another head dim": (
        changed("v", K),
        ValueError,
        "'v': expected size 12 in dimension 3 .the head dim of the cache",
    ),
    "other heads": (
        changed("k", K[:, :, :1]),
        ValueError,
        "'k': expected size 2 in dimension 2 .the heads of the cache",
    ),
    "fewer values": (changed("v", V[:, :1]), ValueError, "'v': expected size 2 in dimension 1"),
    "another batch": (changed("k", K[:1]) | {"v": V[:1], "positions": POSITIONS[:1]}, ValueError, "'block_table': exp"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_writes_nothing(case: str) -> None:
    arguments, kind, said = REFUSED[case]
    k, v = np.full((8, SIZE, 2, 20), 7, np.float32), np.full((8, SIZE, 2, 12), 7, np.float32)
    cache = KVCache(k, v, block_table=TABLE, seqlens=LENGTHS)
    with pytest.raises(kind, match=f"append: argument {said}"):
        at.append(cache, **arguments)
    assert (k == 7).all() and (v == 7).all()


def test_rows_of_padding_are_not_written() -> None:
    """Engines pad a batch of rows to a fixed size, with positions of -1."""
    k, v = np.full((8, SIZE, 2, 20), 7, np.float32), np.full((8, SIZE, 2, 12), 7, np.float32)
    at.append(KVCache(k, v, block_table=TABLE, seqlens=LENGTHS), K, V, np.array([[-1, 3], [-7, -1]], np.int32))
    assert np.array_equal(k[1, 0], K[0, 1]) and np.array_equal(v[1, 0], V[0, 1])
    k[1, 0] = v[1, 0] = 7
    assert (k == 7).all() and (v == 7).all()


def test_slots_of_a_pool_are_positions_of_one_sequence() -> None:
    k, v = np.zeros((8, SIZE, 2, 20), np.float32), np.zeros((8, SIZE, 2, 12), np.float32)
    slots = np.array([[7 * SIZE + 2, -1, 0, 4 * SIZE]], np.int32)
    pool = KVCache(k.reshape(1, -1, 2, 20), v.reshape(1, -1, 2, 12))
    at.append(pool, K.reshape(1, 4, 2, 20), V.reshape(1, 4, 2, 12), slots)
    for place, row in {(7, 2): (0, 0), (0, 0): (1, 0), (4, 0): (1, 1)}.items():
        assert np.array_equal(k[place], K[row]) and np.array_equal(v[place], V[row])
    assert np.count_nonzero(k.any((2, 3))) == 3


def test_other_refusals() -> None:
    k, v = (np.zeros((8, SIZE, 2, dim), np.float32) for dim in (20, 12))
    cache = KVCache(k, v, block_table=TABLE, seqlens=LENGTHS)
    with pytest.raises(TypeError, match="append: argument 'cache': expected a KVCache, got ndarray"):
        at.append(k, K, V, POSITIONS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"append: argument 'cache\.k': expected memory of its own, got that of 'k'"):
        at.append(cache, k[:2, :2], V, POSITIONS)
    with pytest.raises(
        ValueError, match=r"append: argument 'cache\.k': expected memory of its own, got that of 'cache\.v'"
    ):
        at.append(KVCache(k, k, block_table=TABLE, seqlens=LENGTHS), K, K, POSITIONS)
    table, lengths, *new = (torch.from_numpy(x) for x in (TABLE, LENGTHS, K, V, POSITIONS))
    page, pool, values = (torch.from_numpy(x) for x in (np.zeros((1, SIZE, 2, 20), np.float32), k, v))
    said = r"append: argument 'cache\.k': expected elements that share no memory, got stride 0"
    for keys in (page.expand(8, -1, -1, -1), pool[:, :, :1].expand(-1, -1, 2, -1)):
        with pytest.raises(ValueError, match=said), torch.no_grad():
            at.append(KVCache(keys, values, block_table=table, seqlens=lengths), *new)
    with pytest.raises(
        TypeError, match="append: argument 'k': expected dtype float32, bfloat16 or float16, got float64"
    ):
        at.append(cache, K.astype(np.float64), V, POSITIONS)
    with pytest.raises(RuntimeError, match="append: argument 'k': expected a tensor that requires no grad"):
        at.append(cache, torch.from_numpy(K).requires_grad_(), V, POSITIONS)
    with pytest.raises(ValueError, match=r"append: argument 'stream': expected none, as 'cache\.k' is not on a GPU"):
        at.append(cache, K, V, POSITIONS, stream=1)
