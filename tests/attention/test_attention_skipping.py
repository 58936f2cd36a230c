"""Tiles that a mask rules out are neither computed nor loaded.

Computed: a variant counts the logits it is shown. Loaded: the memory of what is ruled out cannot be read.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from support.paths import SUPPORT
from support.store import in_child

# The largest blocks of queries and tiles of keys of any target level; those of the others divide them.
BLOCK, TILE = 48, 64

COUNT = dm.Variant("Count", header="count.h", params=(dm.tensor("counts", "int32"),), root=SUPPORT / "variants")
QUERIES, KEYS = 400, 700


def seen(variant: dm.BoundVariant, queries: int = QUERIES, keys: int = KEYS) -> Any:
    """Which keys each query sees: [queries, keys]."""
    q, k, v = np.zeros((1, queries, 1, 32)), np.zeros((1, keys, 1, 32)), np.eye(keys)[None, :, None]
    return reference.attention(q, k, v, variant=variant)[0][0, :, 0] > 0


def tiles(marks: Any) -> Any:
    """For each element, whether its tile has any that is marked."""
    result = np.zeros_like(marks, bool)
    for q0 in range(0, marks.shape[0], BLOCK):
        for k0 in range(0, marks.shape[1], TILE):
            place = slice(q0, q0 + BLOCK), slice(k0, k0 + TILE)
            result[place] = marks[place].any()
    return result


def counts(attend: at.Attention, variant: dm.BoundVariant) -> Any:
    q, k = np.zeros((1, QUERIES, 1, 32), np.float32), np.zeros((1, KEYS, 1, 32), np.float32)
    result = np.zeros((QUERIES, KEYS), np.int32)
    attend(q, k, k, variant=at.compose(variant, COUNT(result)))
    return result


MASKS = {
    "causal": at.Causal(),
    "window": at.Window(100, 30),
    "causal window": at.compose(at.Causal, at.Window(100, -1)),
    "chunks": at.ChunkedCausal(150),
    "key padding": at.KeyPadding(np.array([130], np.int32)),
    "prefix": at.PrefixLM(np.array([70], np.int32)),
    "causal, key padding": at.compose(at.Causal, at.KeyPadding(np.array([200], np.int32))),
    "tree": at.TreeMask(np.full((1, QUERIES), -1)),
}


@pytest.mark.parametrize("name", MASKS)
def test_no_tile_is_computed_that_is_ruled_out(attend: at.Attention, name: str) -> None:
    marks = seen(MASKS[name])
    needed = tiles(marks)
    assert not needed.all(), "the mask rules no tile out"
    found = counts(attend, MASKS[name])
    assert (found[marks] > 0).all()
    assert not found[~needed].any()


def test_a_mask_that_cannot_tell_computes_everything(attend: at.Attention) -> None:
    """The same mask without `classify_tile`: so the counter sees what is not skipped."""
    mask = at.CustomMask(seen(MASKS["causal"])[None], None)
    assert (counts(attend, mask) > 0).all()


def guarded(shape: tuple[int, ...], readable: Any) -> Any:
    """A zero array [1, keys, 1, head_dim] in which the pages that hold only keys that are not `readable` trap."""
    row = 4 * int(np.prod(shape[2:]))
    memory = mmap.mmap(-1, shape[1] * row)
    array = np.frombuffer(memory, np.float32).reshape(shape)
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    for start in range(0, shape[1] * row, page):
        if not readable[start // row : (start + page - 1) // row + 1].any():
            address = ctypes.c_void_p(array.ctypes.data + start)
            assert libc.mprotect(address, ctypes.c_size_t(page), 0) == 0, os.strerror(ctypes.get_errno())
    return array


# With 128 queries, these leave whole tiles of keys that no query sees.
SPARSE = {
    "window": at.Window(100, 30),
    "key padding": at.KeyPadding(np.array([130], np.int32)),
    "causal window": at.compose(at.Causal, at.Window(40, -1)),
}


def run_guarded(attend: at.Attention, variant: dm.BoundVariant, readable: Any) -> bool:
    """In a process of its own; false if it was killed for reading what it must not."""

    def child() -> float:
        faulthandler.disable()
        shape = (1, KEYS, 1, 256)  # four rows a page
        k, v = guarded(shape, readable), guarded(shape, readable)
        return float(attend(np.zeros((1, 128, 1, 256), np.float32), k, v, variant=variant).sum())

    try:
        return bool(in_child(child) == 0.0)
    except AssertionError as error:
        assert f"ended with status {signal.SIGSEGV:#x}" in str(error)
        return False


@pytest.mark.parametrize("name", SPARSE)
def test_no_tile_is_loaded_that_no_query_needs(attend: at.Attention, name: str) -> None:
    readable = tiles(np.broadcast_to(seen(SPARSE[name], queries=128).any(0), (1, KEYS)))[0]
    assert not readable.all(), "the mask rules no tile out"
    assert run_guarded(attend, SPARSE[name], readable)


def test_a_load_from_a_guarded_tile_is_noticed(attend: at.Attention) -> None:
    marks = seen(SPARSE["window"], queries=128)
    readable = tiles(np.broadcast_to(marks.any(0), (1, KEYS)))[0]
    assert not run_guarded(attend, at.CustomMask(marks[None], None), readable)
