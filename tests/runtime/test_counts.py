"""The counts of calls that an entry keeps for each case, which a record of use reads."""

from __future__ import annotations

import gc
import weakref

import pytest

from support.kernels import PICK

pytestmark = pytest.mark.usefixtures("warm_store")


def test_each_case_counts_its_own_calls() -> None:
    module = PICK.load(width=[1, 2], depth=[1, 2])
    for _ in range(3):
        module.pick(1, 2)
    module.pick.native(2, 2)
    assert [module._dispatcher.counts.of(slot) for slot in range(4)] == [0, 3, 0, 1]


def test_loads_of_one_entry_count_apart() -> None:
    first, second = PICK.load(width=1, depth=1), PICK.load(width=1, depth=1)
    first.pick(1, 1)
    assert (first._dispatcher.counts.of(0), second._dispatcher.counts.of(0)) == (1, 0)


def test_a_function_counts_after_its_module_is_gone() -> None:
    module = PICK.load(width=1, depth=1)
    native, dispatcher = module.pick.native, weakref.ref(module._dispatcher)
    del module
    gc.collect()
    native(1, 1)
    assert (held := dispatcher()) is not None and held.counts.of(0) == 1
