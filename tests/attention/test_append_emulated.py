"""`append` on a GPU, on the emulator (support/emulated.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dimorph import attention as at
from dimorph.attention import appending
from dimorph.attention.kernels import FLOAT8, append_gpu
from dimorph.toolchain import nvidia_driver as driver
from support.appends import append_problem, check, difficult_numbers
from support.emulated import HOST_FLAGS, Emulator, OnGpu, altered, missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

# None of them leads out of the arrays.
FAULTS = {
    "the first row of each page": ("position - page * p.table.page_size", "0"),
    "the first page": ("p.table.pages[first + page]", "p.table.pages[first]"),
    "the first sequence": ("row += p.rooms[sequence]", "row += p.rooms[0]"),
    "padding at position 0": ("= p.positions[token],", "= p.positions[token] < 0 ? 0 : p.positions[token],"),
    "rows behind the last sequence": ("sequence_of(p, token);", "sequence_of(p, token) % p.batch_size;"),
    "one head": ("head * array.to_strides.head + element", "element"),
    "the first chunks of a thread": ("kLoads * lanes)", "array.chunks)"),
    "the first token of a group": ("gridDim.x * group_tokens)", "p.tokens)"),
}
FLOAT8_FAULTS = {
    "the scale of the first head": ("array.scale.of(head)", "array.scale.of(0)"),
    "a product": ("[i]) / scale", "[i]) * (1.f / scale)"),
    "the first elements of a chunk": ("(&result)[i]", "(&result)[i / 2]"),
}
PAIRS = [(FLOAT8[0], np.float32), (FLOAT8[1], ml_dtypes.bfloat16), (FLOAT8[0], np.float16)]


@pytest.fixture(autouse=True)
def gpu(emulator: Emulator, warm_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)
    monkeypatch.setenv("DIMORPH_NVCC", str(emulator.nvcc))
    monkeypatch.setenv("DIMORPH_ARCH", "sm_80")
    monkeypatch.setenv("DIMORPH_CXXFLAGS", " ".join(HOST_FLAGS))
    appending._function.cache_clear()
    yield
    appending._function.cache_clear()


def failed(seeds: range, float8: bool = False) -> list[str]:
    dtypes = ["bfloat16", "float16", *(["float32"] if float8 else [])]
    problems = (append_problem(seed, dtypes, float8) for seed in seeds)
    found = [check(one, move=lambda x: x, wrap=lambda x: OnGpu(x, 0), back=lambda x, _: x) for one in problems]
    return list(filter(None, found))


def rounds_otherwise(stored: str, dtype: Any) -> int:
    """Append difficult numbers; return how many a GPU does not round as the CPU does."""
    numbers = difficult_numbers(dtype).reshape(1, -1, 2, 64)
    positions = np.arange(numbers.shape[1], dtype=np.int32)[None]
    factors = np.array([1.0, 0.3], np.float32)
    caches = [[np.zeros(numbers.shape, getattr(ml_dtypes, stored)) for _ in "kv"] for _ in range(2)]
    at.append(at.KVCache(*caches[0], k_scale=factors, v_scale=4.0), numbers, numbers, positions)
    pools, k_scale, rows, places = ([OnGpu(x, 0) for x in xs] for xs in (caches[1], [factors], [numbers], [positions]))
    at.append(at.KVCache(*pools, k_scale=k_scale[0], v_scale=4.0), rows[0], rows[0], places[0])
    return sum(int((a.view(np.uint8) != b.view(np.uint8)).sum()) for a, b in zip(*caches, strict=True))


def many_tokens() -> bool:
    """Append more tokens than the thread blocks of a GPU copy at a time; return True if they come to their places."""
    k = np.random.default_rng(0).standard_normal((1, 4000, 1, 256)).astype(np.float16)
    positions = np.random.default_rng(1).permutation(4000).astype(np.int32)[None]
    pools = [np.zeros((1, 4000, 1, 256), np.float16) for _ in range(2)]
    at.append(at.KVCache(*(OnGpu(pool, 0) for pool in pools)), OnGpu(k, 0), OnGpu(-k, 0), OnGpu(positions, 0))
    return all(np.array_equal(pool[0, positions[0]], new[0]) for pool, new in zip(pools, (k, -k), strict=True))


def test_more_tokens_than_fit_at_a_time() -> None:
    assert many_tokens()


def test_random_appends() -> None:
    found = failed(range(150))
    assert not found, f"{len(found)} failed:\n" + "\n".join(found)


def test_random_appends_into_8_bits() -> None:
    found = failed(range(90), float8=True)
    assert not found, f"{len(found)} failed:\n" + "\n".join(found)


@pytest.mark.parametrize(("stored", "dtype"), PAIRS)
def test_rounding_is_that_of_the_cpu(stored: str, dtype: Any) -> None:
    assert rounds_otherwise(stored, dtype) == 0


@pytest.mark.parametrize("fault", FLOAT8_FAULTS)
def test_a_planted_fault_of_rounding_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    planted = altered(tmp_path, append_gpu, "gpu/append.cu", *FLOAT8_FAULTS[fault])
    monkeypatch.setattr(appending, "append_gpu", planted)
    assert rounds_otherwise(*PAIRS[0])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(appending, "append_gpu", altered(tmp_path, append_gpu, "gpu/append.cu", *FAULTS[fault]))
    # The first one ends it.
    assert any(failed(range(seed, seed + 1)) for seed in range(60)) or not many_tokens()


def test_a_pool_of_more_than_2_to_the_31_elements() -> None:
    pool = np.zeros((2**31 // 1024 + 10, 16, 2, 1, 32), np.float16)  # of which a few pages are touched
    last = len(pool) - 1
    table = np.array([[last, 3], [0, last - 1]], np.int32)
    cache = {"block_table": OnGpu(table, 0), "seqlens": OnGpu(np.zeros(2, np.int32), 0)}
    k = np.random.default_rng(0).standard_normal((2, 20, 1, 32)).astype(np.float16)
    positions = OnGpu(np.arange(20, dtype=np.int32)[None].repeat(2, 0), 0)
    at.append(at.KVCache(*(OnGpu(pool[:, :, i], 0) for i in (0, 1)), **cache), OnGpu(k, 0), OnGpu(-k, 0), positions)
    for side, new in enumerate((k, -k)):
        for b in range(2):
            rows = [pool[table[b, i // 16], i % 16, side] for i in range(20)]
            assert np.array_equal(rows, new[b])


POOL, NEW, AT = np.zeros((2, 4, 1, 8), np.float16), np.ones((2, 1, 1, 8), np.float16), np.zeros((2, 1), np.int32)
ELSEWHERE = "expected a tensor on cuda:0, where 'cache.k' is, got one on cpu"
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "keys elsewhere": ({}, {"k": NEW}, f"'k': {ELSEWHERE}"),
    "values elsewhere": ({}, {"v": NEW}, f"'v': {ELSEWHERE}"),
    "positions elsewhere": ({}, {"positions": AT}, f"'positions': {ELSEWHERE}"),
    "offsets elsewhere": (
        {},
        {"k": OnGpu(NEW[:, 0], 0), "v": OnGpu(NEW[:, 0], 0), "cu_seqlens": AT[0]},
        f"'cu_seqlens': {ELSEWHERE}",
    ),
    "a table elsewhere": ({"block_table": AT, "seqlens": OnGpu(AT[:, 0].copy(), 0)}, {}, f"'block_table': {ELSEWHERE}"),
    "other heads": ({}, {"k": OnGpu(NEW.repeat(2, 2), 0)}, "'k': expected size 1 in dimension 2 (the heads of the ca"),
    "wide positions": (
        {},
        {"positions": OnGpu(AT.astype(np.int64), 0)},
        "'positions': expected dtype int32, got int64",
    ),
    "its own memory": ({}, {"k": OnGpu(POOL[:, :1], 0)}, "'cache.k': expected memory of its own, got that of 'k'"),
    "float32": (
        {},
        {"k": OnGpu(NEW.astype(np.float32), 0)},
        "'k': expected dtype bfloat16 or float16, on a GPU, got float32",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_writes_nothing(case: str) -> None:
    tables, changed, said = REFUSED[case]
    k, v = OnGpu(POOL, 0), OnGpu(POOL.copy(), 0)
    arguments = {"k": OnGpu(NEW, 0), "v": OnGpu(NEW, 0), "positions": OnGpu(AT, 0)} | changed
    with pytest.raises((TypeError, ValueError), match=f"append: argument {re.escape(said)}"):
        at.append(at.KVCache(k, v, **tables), **arguments)
    assert (k.array == 0).all() and (v.array == 0).all()
