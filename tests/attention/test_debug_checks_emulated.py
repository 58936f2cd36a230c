"""Under DIMORPH_DEBUG=1: lengths, offsets and page tables in the memory of a GPU, on the emulator."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dimorph import attention as at
from dimorph import settings
from dimorph.attention import appending
from dimorph.toolchain import nvidia_driver as driver
from support.emulated import Emulator, OnGpu, missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

ARCHS = ("sm_80", "sm_90a")
SIZE, PAGES = 4, 5  # of a page, and of the pool
POOL = np.random.default_rng(0).standard_normal((PAGES + 1, SIZE, 1, 16)).astype(np.float16)


def ints(*numbers: Any) -> Any:
    return np.array(numbers, np.int32)


TABLE: dict[str, Any] = {"block_table": ints([3, 99], [1, 4]), "seqlens": ints(4, 7)}
INDEX: dict[str, Any] = {"indptr": ints(0, 1, 3), "indices": ints(3, 1, 4), "last_page_len": ints(4, 3)}
ROOM: dict[str, Any] = {"seqlens": ints(0, 4)}
RAGGED: dict[str, Any] = {"cu_seqlens": ints(0, 3, 5), "seqlens": ints(1, 2)}
Q: dict[str, Any] = {}
FITTING = {"block table": TABLE, "indptr": INDEX, "dense": ROOM, "ragged": RAGGED}
# Arguments of the cache, those of the call, and what is said.
FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a page behind the pool": (
        TABLE | {"block_table": ints([3, 99], [1, PAGES])},
        Q,
        f"'block_table': expected a page from 0 to {PAGES - 1} as number 1 of sequence 1, got {PAGES}",
    ),
    "a negative page": (TABLE | {"block_table": ints([-1, 99], [1, 4])}, Q, "'block_table': expected a page from 0 to"),
    "a page that a longer sequence uses": (TABLE | {"seqlens": ints(5, 7)}, Q, "number 1 of sequence 0, got 99"),
    "keys behind the table": (
        TABLE | {"seqlens": ints(4, 9)},
        Q,
        "'seqlens': expected a length from 0 to 8 for sequence 1, as it has room for, got 9",
    ),
    "a negative length": (TABLE | {"seqlens": ints(-1, 7)}, Q, "'seqlens': expected a length from 0 to 8 for"),
    "an index behind the pool": (INDEX | {"indices": ints(3, 1, 1000)}, Q, "'indices': expected a page from 0 to"),
    "an empty last page": (INDEX | {"last_page_len": ints(4, 0)}, Q, "'last_page_len': expected 1 to 4 keys for seq"),
    "a last page that is too long": (INDEX | {"last_page_len": ints(5, 3)}, Q, "'last_page_len': expected 1 to 4 keys"),
    "offsets of pages that fall": (INDEX | {"indptr": ints(0, 3, 1)}, Q, "'indptr': expected offsets that never fall"),
    "offsets of more pages": (INDEX | {"indptr": ints(0, 1, 4)}, Q, "'indptr': expected offsets up to 3 tokens, got 4"),
    "keys behind the room": (ROOM | {"seqlens": ints(0, 5)}, Q, "'seqlens': expected a length from 0 to 4 for"),
    "ragged keys": (RAGGED | {"cu_seqlens": ints(0, 3, 6)}, Q, "'cu_seqlens': expected offsets up to 5 tokens, got 6"),
    "ragged keys behind their room": (RAGGED | {"seqlens": ints(1, 3)}, Q, "'seqlens': expected a length from 0 to 2"),
    "queries behind the room": (TABLE, {"seqlens_q": ints(1, 4)}, "'seqlens_q': expected a length from 0 to 3 for"),
    "ragged queries": (TABLE, {"cu_seqlens_q": ints(0, 2, 9)}, "'cu_seqlens_q': expected offsets up to 6 tokens, got"),
    "a sequence longer than the longest": (
        TABLE,
        {"cu_seqlens_q": ints(0, 2, 6), "max_seqlen_q": 3},
        "'max_seqlen_q': expected 4 or more, the length of sequence 1, got 3",
    ),
}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator.build(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(autouse=True)
def gpu(emulator: Emulator, shared_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)
    values = {"NVCC": emulator.nvcc, "ARCH": "sm_80", "STORE": shared_store, "DEBUG": 1}
    for name, value in values.items():
        monkeypatch.setenv(f"DIMORPH_{name}", str(value))
    appending._function.cache_clear()
    yield
    appending._function.cache_clear()


@pytest.fixture
def capture(emulator: Emulator) -> Iterator[None]:
    library = ctypes.CDLL(str(emulator.nvcc.parent.parent / "driver.so"))
    library.emulated_set_capture(1)
    yield
    library.emulated_set_capture(0)


_attend: dict[str, at.Attention] = {}


def operation(arch: str) -> at.Attention:
    """Return the operation of a family, with kernels that are compiled once."""
    if arch not in _attend:
        config = replace(settings.current(), arch=arch)
        _attend[arch] = at.Attention(policy="jit", settings=config, family="sm90" if arch.endswith("a") else "sm80")
    return _attend[arch]


def moved(arrays: dict[str, Any], arch: str) -> dict[str, Any]:
    return {name: OnGpu(x, ARCHS.index(arch)) if isinstance(x, np.ndarray) else x for name, x in arrays.items()}


def call(arch: str, tables: dict[str, Any], options: dict[str, Any], planned: bool) -> Any:
    """Call attention over the pool, or `plan` and `run`; return the results."""
    shape = POOL[:PAGES] if "indptr" in tables or "block_table" in tables else POOL[:2]
    keys = POOL.reshape(-1, 1, 16)[:5] if "cu_seqlens" in tables else shape
    q = np.ones((2, 3, 2, 16) if "cu_seqlens_q" not in options else (6, 2, 16), np.float16)
    out, size = np.zeros_like(q), at.plan_size(q.shape, 1, 16, sequences=2)
    workspace = np.zeros(size + 3, np.float32)
    workspace = workspace[-workspace.ctypes.data // 4 % 4 :]
    cache = at.KVCache(**moved({"k": keys, "v": keys, **tables}, arch))
    given = moved({"workspace": workspace, **options}, arch)
    attend, on_gpu = operation(arch), moved({"q": q, "out": out}, arch)
    if planned:
        attend.run(attend.plan(on_gpu["q"], cache, **given), on_gpu["q"], cache, out=on_gpu["out"])
    else:
        attend(on_gpu["q"], cache, out=on_gpu["out"], **given)
    return out


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused(fault: str, arch: str, planned: bool) -> None:
    tables, options, said = FAULTS[fault]
    with pytest.raises(ValueError, match=f"attention: argument .*{re.escape(said.split(': ', 1)[-1])}") as raised:
        call(arch, tables, options, planned)
    assert said in str(raised.value)


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("kind", FITTING)
def test_what_fits_is_computed(kind: str, arch: str, planned: bool) -> None:
    """The entry 99 of the block table belongs to no key in use."""
    tables = FITTING[kind]
    keys = POOL[:PAGES] if kind in ("block table", "indptr") else POOL.reshape(-1, 1, 16)[:5]
    q = np.ones((2, 3, 2, 16), np.float16)
    expected = at.attention(q, at.KVCache(*([keys if kind != "dense" else POOL[:2]] * 2), **tables))
    assert np.allclose(call(arch, tables, {}, planned), expected, atol=4e-3)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.usefixtures("capture")
def test_nothing_is_read_back_while_a_stream_is_captured(arch: str) -> None:
    """The page lies behind the pool, but in its memory."""
    call(arch, *FAULTS["a page behind the pool"][:2], planned=False)


@pytest.mark.parametrize("arch", ARCHS[:1])
def test_offsets_of_a_call_without_a_cache(arch: str) -> None:
    q, k = np.ones((6, 2, 16), np.float16), POOL.reshape(-1, 1, 16)
    offsets = {"cu_seqlens_q": ints(0, 2, 6), "cu_seqlens_k": ints(0, 3, 99)}
    arrays = moved({"q": q, "k": k, "v": k, "out": q.copy(), **offsets}, arch)
    with pytest.raises(ValueError, match="argument 'cu_seqlens_k': expected offsets up to 24 tokens, got 99"):
        operation(arch)(**arrays)


NEW = np.ones((2, 2, 1, 16), np.float16)
# Arguments of the cache, the positions of two rows of each sequence, and what is said.
APPENDS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "a page behind the pool": (
        TABLE | {"block_table": ints([3, 99], [1, PAGES])},
        ints([0, -1], [2, 4]),
        f"'block_table': expected a page from 0 to {PAGES - 1} as number 1 of sequence 1, got {PAGES}",
    ),
    "a page that is none": (
        TABLE,
        ints([0, 4], [2, 3]),
        "expected a page from 0 to 4 as number 1 of sequence 0, got 9",
    ),
    "a position behind the table": (
        TABLE,
        ints([0, 1], [2, 8]),
        "'positions': expected a position from 0 to 7 for token 1 of sequence 1, as there is room for, got 8",
    ),
    "a position behind the pages": (INDEX, ints([4, 1], [2, 3]), "'positions': expected a position from 0 to 3 for"),
    "an index behind the pool": (INDEX | {"indices": ints(3, 1, 77)}, ints([0, 1], [2, 4]), "'indices': expected a p"),
    "offsets of more pages": (INDEX | {"indptr": ints(0, 1, 4)}, ints([0, 1], [2, 4]), "'indptr': expected offsets up"),
    "a position behind the room": ({}, ints([0, 1], [2, 4]), "'positions': expected a position from 0 to 3 for token"),
    "a position behind ragged keys": (
        {"cu_seqlens": ints(0, 3, 5)},
        ints([0, 3], [0, 1]),
        "'positions': expected a position from 0 to 2 for token 1 of sequence 0",
    ),
    "ragged keys": ({"cu_seqlens": ints(0, 3, 6)}, ints([0, 1], [0, 1]), "'cache.cu_seqlens': expected offsets up to"),
}


def append(tables: dict[str, Any], positions: Any, ragged: bool) -> Any:
    pool = np.zeros((PAGES, SIZE, 1, 16), np.float16)
    pool = pool if "indptr" in tables or "block_table" in tables else pool[:2]
    keys = pool.reshape(-1, 1, 16)[:5] if "cu_seqlens" in tables else pool
    cache = at.KVCache(**moved({"k": keys, "v": keys.copy(), **tables}, "sm_80"))
    new, options = NEW, {}
    if ragged:
        new, positions, options = NEW.reshape(4, 1, 16), positions.reshape(4), {"cu_seqlens": ints(0, 2, 4)}
    at.append(cache, *moved({"k": new, "v": new, "at": positions}, "sm_80").values(), **moved(options, "sm_80"))
    return keys


def test_the_checks_alone_beside_optimised_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIMORPH_DEBUG")
    tables, positions, _ = APPENDS["a page that is none"]
    for flags in ("-DDIMORPH_DEBUG", ""):
        monkeypatch.setenv("DIMORPH_CXXFLAGS", flags)
        appending._function.cache_clear()
        if flags:
            with pytest.raises(ValueError, match="append: argument 'block_table': expected a page from 0 to 4"):
                append(tables, positions, ragged=False)
        else:  # a page of the pool, but of no key in use
            append(TABLE, ints([0, 1], [2, 3]), ragged=False)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("fault", APPENDS)
def test_append_writes_nothing_to_places_that_are_none(fault: str, ragged: bool) -> None:
    tables, positions, said = APPENDS[fault]
    with pytest.raises(ValueError, match=f"append: argument .*{re.escape(said.split(': ', 1)[-1])}") as raised:
        append(tables, positions, ragged)
    assert said in str(raised.value)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("kind", "places"), [("block table", ([0, 3], [6, -1])), ("indptr", ([3, 0], [4, -5]))])
def test_append_writes_to_places_that_are_there(kind: str, places: Any, ragged: bool) -> None:
    assert append(FITTING[kind], ints(*places), ragged).sum() == 3 * 16


@pytest.mark.parametrize(("name", "factors"), [("k_scale", [1.0, 0.0]), ("v_scale", [float("nan")])])
def test_factors(name: str, factors: list[float]) -> None:
    """Of `append`, and of attention over what it stores."""
    pool = np.zeros((2, SIZE, 2, 16), ml_dtypes.float8_e4m3fn)
    scales = {"k_scale": np.ones(2, np.float32), "v_scale": np.ones(1, np.float32)}
    new, at_0 = np.ones((2, 1, 2, 16), np.float16), ints([0], [0])
    said = f"argument '{name}': expected factors above 0, up to 1e30, got .* for head {len(factors) - 1}"
    for fits in (True, False):
        given = scales if fits else scales | {name: np.array(factors, np.float32)}
        cache = at.KVCache(**moved({"k": pool, "v": pool.copy(), "seqlens": ints(1, 1), **given}, "sm_80"))
        results = moved({"q": new, "out": np.zeros_like(new), "workspace": np.zeros(1, np.float32)}, "sm_80")
        q = results.pop("q")
        calls = (
            lambda: at.append(cache, q, q, OnGpu(at_0, 0)),  # noqa: B023 (called at once)
            lambda: operation("sm_80")(q, cache, **results),  # noqa: B023
        )
        for call_it in calls:
            if fits:
                call_it()
                continue
            with pytest.raises(ValueError, match=said):
                call_it()
