"""Handles: C++ objects that one call makes and later calls use."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dimorph as dm
from support.forms import Form
from support.kernels import ARGUMENTS, BAG
from support.programs import run
from support.sanitized import ADDRESS, THREAD, Sanitizer
from support.skeletons import replace
from support.store import result_of, start_child

pytestmark = pytest.mark.usefixtures("warm_store")


@pytest.fixture
def counts() -> np.ndarray:
    """How many bags were made and destroyed; C++ counts in it."""
    return np.zeros(2, np.int64)


def _values(width: int = 3, dtype: str = "float32") -> np.ndarray:
    return np.arange(1, width + 1).astype(dtype)


# --- Made in one call, used in others, destroyed once ---


def test_an_object_lives_from_its_call_to_its_last_reference(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    bag = module.make(_values(), counts)
    assert module.sum(bag, 1.0) == 6
    assert module.sum(bag, 0.5) == 3
    again = [bag]
    del bag
    assert counts.tolist() == [1, 0]
    assert module.sum(again[0], 1.0) == 6
    again.clear()
    assert counts.tolist() == [1, 1]


def test_an_object_outlives_its_module(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    bag = module.make(_values(), counts)
    del module
    gc.collect()
    assert repr(bag) == "<dimorph.Handle bag(dtype=float32, width=3): Bag>"
    del bag
    assert counts.tolist() == [1, 1]


def test_each_handle_finds_the_case_that_made_it(counts: np.ndarray) -> None:
    """In turns, so that a place that was remembered for another handle would show."""
    module = BAG.load()
    bags = [module.make(_values(width, dtype), counts) for dtype in ("float32", "float64") for width in (2, 3)]
    for _ in range(2):
        assert [module.sum(bag, 1.0) for bag in bags] == [3, 6, 3, 6]


def test_an_object_that_is_not_made_or_not_returned_leaves_nothing(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    with pytest.raises(ValueError, match="expected no negative element, got -1"):
        module.make(-_values(), counts)
    with pytest.raises(ValueError, match="expected no negative element, got -1"):
        module.keep(-_values(), counts)
    assert counts.tolist() == [0, 0]
    with pytest.raises(IndexError, match="make_in_vain"):
        module.make_in_vain(_values(), counts)
    assert counts.tolist() == [1, 1]


def test_the_last_reference_may_go_in_any_thread(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    bags = [module.make(_values(), counts) for _ in range(400)]

    def work() -> None:
        while bags:
            try:
                bag = bags.pop()
            except IndexError:
                return
            assert module.sum(bag, 1.0) == 6

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.tolist() == [400, 400]


def test_objects_are_destroyed_when_the_interpreter_ends(tmp_path: Path) -> None:
    """A global of the program, and one in a cycle that only the end breaks."""
    file = tmp_path / "counts"
    np.zeros(2, np.int64).tofile(file)
    program = """
        import gc, sys
        import numpy as np
        from support.kernels import BAG
        gc.disable()
        counts = np.memmap(sys.argv[1], np.int64, "r+")
        module = BAG.load(dtype="float32", width=3)
        values = np.ones(3, np.float32)
        bag, kept = module.make(values, counts), module.keep(values, counts)
        cycle = [module.make(values, counts)]
        cycle.append(cycle)
        del cycle
    """
    run(program, str(file))
    assert np.fromfile(file, np.int64).tolist() == [3, 3]


def test_parent_and_child_of_a_fork_have_an_object_each(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    bag = module.make(_values(), counts)

    def child() -> list[object]:
        nonlocal bag
        before = module.sum(bag, 1.0)
        bag.close()
        other = module.make(_values(), counts)
        return [before, module.sum(other, 2.0), counts.tolist()]

    assert result_of(start_child(child)) == [6, 12, [2, 1]]
    assert module.sum(bag, 1.0) == 6 and counts.tolist() == [1, 0]


# --- Its end by `close` ---


def test_a_closed_handle_is_refused(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    bag = module.make(_values(), counts)
    assert not bag.closed
    bag.close()
    bag.close()
    assert bag.closed and repr(bag).endswith(": Bag, closed>")
    assert counts.tolist() == [1, 1]
    for call, more in ((module.sum, (1.0,)), (module.sum_or_zero, ())):
        with pytest.raises(ValueError, match=r"argument 'bag': expected an open handle, got bag\(.*\): Bag, which was"):
            call(bag, *more)
    del bag
    assert counts.tolist() == [1, 1]


def test_close_waits_for_the_calls_that_use_the_object(counts: np.ndarray) -> None:
    module = BAG.load()
    bag = module.make(_values(), counts)
    call = threading.Thread(target=module.wait, args=(bag, _values(), 500))
    call.start()
    time.sleep(0.1)
    bag.close()
    assert counts.tolist() == [1, 0]
    with pytest.raises(ValueError, match="expected an open handle"):
        module.sum(bag, 1.0)
    call.join()
    assert counts.tolist() == [1, 1]


def test_other_threads_run_during_a_call_with_a_handle(counts: np.ndarray) -> None:
    """However few elements its tensors have."""
    module = BAG.load()
    bag = module.make(_values(), counts)
    module.wait(bag, _values(), 0)
    call = threading.Thread(target=module.wait, args=(bag, _values(), 500))
    call.start()
    turns = 0
    while call.is_alive():
        time.sleep(0.005)
        turns += 1
    assert turns > 5


# --- Wrong uses ---


@pytest.mark.parametrize(
    ("given", "got"), [(None, "None"), (3, "an int"), (np.zeros(2), "a tensor"), ("bag", "a str"), ([], "a sequence")]
)
def test_what_is_no_handle_is_refused(mode: Form, given: object, got: str) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    with pytest.raises(TypeError, match=f"^sum: argument 'bag': expected a handle, got {got}$"):
        module.sum(given, 1.0)


def test_a_handle_is_no_other_argument(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    bag = module.make(_values(), counts)
    with pytest.raises(TypeError, match=r"^sum: argument 'factor': expected a number, got a handle$"):
        module.sum(bag, bag)
    with pytest.raises(TypeError, match=r"argument 'number': expected an int, got an object of another kind$"):
        ARGUMENTS.load().echo_int64(bag)


def test_a_handle_may_be_optional(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    assert module.sum_or_zero(module.make(_values(), counts)) == 1
    assert module.sum_or_zero(None) == module.sum_or_zero() == 0
    assert counts.tolist() == [1, 1]


@pytest.mark.parametrize("dispatched", [False, True])
def test_an_author_who_forgets_that_a_handle_may_be_none_gets_an_error(
    mode: Form, counts: np.ndarray, dispatched: bool
) -> None:
    def child() -> list[object]:
        module = mode.load(BAG, dtype="float32", width=3)
        found = module.sum_careless(module.make(_values(), counts), dispatched)
        with pytest.raises(TypeError, match=r"^sum(_careless)?: argument 'bag': expected a handle.*, got None$"):
            module.sum_careless(None, dispatched)
        return [found]

    assert result_of(start_child(child)) == [6]  # in a process of its own, which a null pointer would end


def test_the_object_of_another_type_is_refused(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    bag, other = module.make(_values(), counts), module.make_other(3)
    assert module.other(other) == 3
    of = r"bag\(dtype=float32, width=3\)"
    with pytest.raises(TypeError, match=f"^other: argument 'bag': expected a handle {of}: Other, got {of}: Bag$"):
        module.other(bag)
    with pytest.raises(TypeError, match=f"^sum_or_zero: argument 'bag': expected a handle {of}: Bag, got {of}: Other$"):
        module.sum_or_zero(other)


def test_the_object_of_another_specialization_is_refused(counts: np.ndarray) -> None:
    module = BAG.load()
    bag = module.make(_values(3), counts)
    with pytest.raises(TypeError, match=r"expected a handle bag\(dtype=float32, width=2\): Bag, got bag\(.*width=3\)"):
        module.sum_as(bag, 2)
    two = BAG.load(dtype="float32", width=2)
    expected = "^sum: argument 'bag': axis width: the handle has 3, this module was compiled for 2$"
    with pytest.raises(dm.SpecializationMismatch, match=expected):
        two.sum(bag, 1.0)
    assert module.sum(bag, 1.0) == 6


def test_modules_with_the_same_case_share_its_handles(counts: np.ndarray) -> None:
    specialized, dispatching = BAG.load(dtype="float32", width=3), BAG.load()
    for maker in (specialized, dispatching):
        bag = maker.make(_values(), counts)
        assert [module.sum(bag, 1.0) for module in (specialized, dispatching, specialized)] == [6, 6, 6]


def test_the_object_of_another_build_is_refused(
    mode: Form, counts: np.ndarray, copy_of: Callable[..., dm.Kernel]
) -> None:
    kernel = copy_of(BAG)
    bag = mode.load(BAG, dtype="float32", width=3).make(_values(), counts)
    replace(kernel.root / "bag_case.cc", "DType values[WIDTH];", "DType moved, values[WIDTH];")
    module = mode.load(kernel, dtype="float32", width=3)
    with pytest.raises(TypeError, match=r"^sum: argument 'bag': expected a handle (.*), got \1, made by another"):
        module.sum(bag, 1.0)


def test_the_object_of_another_kernel_is_refused(
    mode: Form, counts: np.ndarray, copy_of: Callable[..., dm.Kernel]
) -> None:
    kernel = copy_of(BAG, name="sack")
    for name in ("bag.cc", "bag_case.cc"):
        replace(kernel.root / name, "bag_config.h", "sack_config.h")
    bag = mode.load(BAG, dtype="float32", width=3).make(_values(), counts)
    module = mode.load(kernel, dtype="float32", width=3)
    expected = r"^sum: argument 'bag': expected a handle of kernel sack, got bag\(dtype=float32, width=3\): Bag$"
    with pytest.raises(TypeError, match=expected):
        module.sum(bag, 1.0)


@pytest.mark.parametrize("use", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda use: use.__name__)
def test_a_handle_cannot_be_sent_or_copied(counts: np.ndarray, use: Callable[[object], object]) -> None:
    bag = BAG.load().make(_values(), counts)
    with pytest.raises(TypeError, match=r"cannot pickle or copy <dimorph\.Handle bag\(.*\): Bag>: .* this process"):
        use(bag)
    with pytest.raises(TypeError, match="functions of kernels make handles"):
        dm.Handle()


# --- Values that are built late ---


def test_handles_outlive_the_entry_that_made_them(counts: np.ndarray) -> None:
    """A wider entry numbers its cases anew. Functions bound before it take its handles, too."""
    module = BAG.load(dtype=["float32", "float64"], width=[2, 3])
    before, native = module.sum, module.sum.native
    old = [module.make(_values(width, "float64"), counts) for width in (2, 3)]
    assert [before(bag, 1.0) for bag in old] == [3, 6]
    new = [module.make(_values(width, "float64"), counts) for width in (5, 6)]
    for call in (module.sum, before, native, module.sum):
        assert [call(bag, 1.0) for bag in [*old, *new]] == [3, 6, 15, 21]
    assert BAG.load(dtype="float64", width=5).sum(new[0], 1.0) == 15


def test_a_handle_brings_its_value_to_a_module_that_lacks_it(counts: np.ndarray) -> None:
    bag = BAG.load(dtype="float32", width=7).make(_values(7), counts)
    assert BAG.load().sum(bag, 1.0) == 28
    with pytest.raises(dm.MissingSpecialization, match=r"width.*7"):
        Form("aot").load(BAG).sum(bag, 1.0)


# --- Arrays that an object keeps ---


def test_an_object_keeps_the_array_of_its_call(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    values = _values()
    kept = module.keep(values, counts)
    values[0] = 8
    assert module.first(kept) == 8
    memory = values.base if values.base is not None else values
    gone: list[int] = []
    owner = _Owner(memory, gone)
    held = module.keep(np.asarray(owner), counts)
    del owner
    gc.collect()
    assert not gone and module.first(held) == 8
    del held
    gc.collect()
    assert gone == [1]


class _Owner:
    """The owner of an array's memory; it notes its end."""

    def __init__(self, memory: np.ndarray, gone: list[int]) -> None:
        self._memory, self._gone = memory, gone
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._gone.append(1)


def test_a_read_only_array_is_kept(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    values = _values()
    values.flags.writeable = False
    kept = module.keep(values, counts)
    del values
    gc.collect()
    assert module.first(kept) == 1


def test_what_ends_with_the_call_cannot_be_kept(mode: Form, counts: np.ndarray) -> None:
    module = mode.load(BAG, dtype="float32", width=3)
    with pytest.raises(TypeError, match="keep_copy: a tensor: expected an array of the caller's"):
        module.keep_copy(_values(), counts)
    assert counts.tolist() == [1, 1]


# --- Mistakes of authors ---


@pytest.mark.parametrize(
    ("file", "old", "new", "place", "cause", "cure"),
    [
        ("bag_case.cc", "struct Other {\n  int width;\n};", "struct Other;", "bag_case.cc", "not defined", "define it"),
        ("bag_case.cc", "  ~Bag() {", "  ~Bag() noexcept(false) {", "bag_case.cc", "may throw", "noexcept"),
        ("bag_case.cc", "double other(Handle<Other> other)", "double other(Handle<> other)", "", "no type", "Handle<T"),
        (
            "bag.cc",
            "double other(Handle<> bag)",
            "struct B;\ndouble other(Handle<B> bag)",
            "bag.cc",
            "type",
            "Handle<>",
        ),
        (
            "bag.cc",
            "double other(Handle<> bag) {",
            "dimorph::Results<NewHandle, int> f() { return {}; }\nDIMORPH_EXPORT(f)\ndouble other(Handle<> bag) {",
            "bag.cc",
            "cannot get",
            "Optional<T> or dimorph::Results<A, B> of these but the new ones",
        ),
        ("bag.cc", "other, double)(bag)", "other)(bag)", "bag.cc", "is void", r"DIMORPH_CALL_ON\(bag, other, int\)"),
        ("bag.cc", "(bag, other, double)", "(bag, othr, double)", "bag.cc", "no function 'othr'", "'other'"),
    ],
    ids=[
        "incomplete",
        "throwing destructor",
        "untyped in a case",
        "typed in an entry",
        "two results",
        "no result",
        "misspelt",
    ],
)
def test_a_mistake_is_told_in_six_lines(
    copy_of: Callable[..., dm.Kernel], file: str, old: str, new: str, place: str, cause: str, cure: str
) -> None:
    kernel = copy_of(BAG)
    replace(kernel.root / file, old, new)
    with pytest.raises(dm.BuildError) as caught:
        kernel.load(dtype="float32", width=3)
    message = str(caught.value)
    assert len(message.splitlines()) <= 6, message
    for pattern in (place, cause, cure):
        assert re.search(pattern, message), message


# --- Under the sanitizers ---


@pytest.mark.long
@pytest.mark.parametrize("sanitizer", [ADDRESS, THREAD], ids=["address", "thread"])
def test_the_sanitizers_find_nothing(sanitizer: Sanitizer) -> None:
    if reason := sanitizer.missing():
        pytest.skip(reason)
    done = sanitizer.run("support.bags", DIMORPH_NUM_THREADS="2")
    assert done.returncode == 0 and "1203 made, 1203 destroyed" in done.stdout, done.stdout
