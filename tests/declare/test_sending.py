"""Kernels, modules, attention and variants in pickles and copies: sent by where they are declared, or refused."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph.attention.kernels import attention_cpu
from support import sending
from support.kernels import KINDS, PICK, SCALE, SHIFT
from support.sending import KERNEL

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def sent(value: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kernel", [KINDS, PICK, SCALE, KERNEL, attention_cpu], ids=lambda kernel: kernel.name)
def test_a_kernel_is_sent_by_its_variable(kernel: dm.Kernel, protocol: int) -> None:
    assert sent(kernel, protocol) is kernel
    assert sent([kernel, {"kernel": kernel}], protocol)[1]["kernel"] is kernel
    some = kernel.instantiations()
    assert sent(some, protocol) == some


def test_the_module_that_declares_a_kernel_is_preferred() -> None:
    # This module has the variable, too, and comes first in the alphabet.
    assert b"support.sending" in pickle.dumps(KERNEL)
    assert b"support.kernels" in pickle.dumps(PICK)


def test_a_kernel_without_a_variable_is_refused() -> None:
    kernel = dm.Kernel(name="lost", entry="lost.cc", case=[])
    message = "^kernel lost cannot be pickled: no variable of a module .* holds it; declare it at the top level"
    for value in (kernel, [kernel], kernel.instantiations()):
        with pytest.raises(TypeError, match=message):
            pickle.dumps(value)


def test_a_receiver_without_the_declaration_says_so() -> None:
    data = pickle.dumps(KERNEL).replace(b"support.sending", b"support.sendinx")
    with pytest.raises(TypeError, match=r"kernel pick cannot be unpickled: it was sent as support.sendinx.KERNEL"):
        pickle.loads(data)


def test_copies_share_what_is_immutable_or_loaded(warm_store: object) -> None:
    lost = dm.Kernel(name="lost", entry="lost.cc", case=[])
    module = PICK.load(width=1, depth=2)
    for value in (KINDS, lost, module, at.attention, at.Attention(policy="jit"), module.pick):
        assert copy.copy(value) == copy.deepcopy(value) == value
    assert copy.deepcopy({"kernel": lost, "module": module}) == {"kernel": lost, "module": module}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_module_is_loaded_again(warm_store: object, protocol: int) -> None:
    for module in (PICK.load(width=1, depth=2), PICK.load(width=[1, 2]), PICK.load(policy="jit")):
        other = sent(module, protocol)
        assert other.pick(1, 2) == module.pick(1, 2) == 1002
        assert other.instantiations == module.instantiations
        assert sent(module.resolutions, protocol) == module.resolutions


def test_a_function_is_not_sent(warm_store: object) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match="pick"):
        pickle.dumps(PICK.load(width=1, depth=2).pick)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_variants_are_sent_by_value(protocol: int) -> None:
    for variant in (at.Plain, SHIFT, at.Window(1, 2), at.compose(at.Causal, at.SoftCap(3.0))):
        assert sent(variant, protocol) == variant
    alibi = sent(sending.composed(), protocol)
    assert alibi.variant == sending.composed().variant
    np.testing.assert_array_equal(alibi.args[0], np.ones(2))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_attention_is_sent(protocol: int) -> None:
    assert sent(at.attention, protocol) == at.attention
    own = at.Attention(policy="aot", family="sm80")
    assert sent(own, protocol)._made_of == own._made_of == ("aot", None, "sm80")
    assert sent(own.__call__, protocol).__self__._made_of == own._made_of


def test_spawned_processes_get_all_of_it(warm_store: Path) -> None:
    variant = sending.composed()
    expected = sending.by_attention((at.attention, variant))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(sending.by_kernel, [KERNEL, PICK]) == [1002, 1002]
        assert pool.map(sending.by_module, [PICK.load(width=1, depth=2)]) == [1002]
        for attend in (at.attention, at.Attention(policy="jit")):
            np.testing.assert_array_equal(pool.map(sending.by_attention, [(attend, variant)])[0], expected)
        with pytest.raises(dm.MissingSpecialization, match="lacks it") as caught:
            pool.map(sending.failing, [None])
    assert (caught.value.kernel, caught.value.missing, caught.value.command) == (
        "pick",
        {"width": "1"},
        "dimorph build",
    )


SCRIPT = """
import multiprocessing, sys
import dimorph as dm
kernel = dm.Kernel(name="pick", entry="pick.cc", case=["pick_case.cc"], root=sys.argv[1], axes=[
    dm.int_axis("width", "WIDTH", [1], accepts=lambda _: True), dm.int_axis("depth", "DEPTH", [1, 2])])
def work(kernel):
    return int(kernel.load(width=1, depth=2).pick(1, 2))
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(work, [kernel]))
"""


def test_a_script_sends_its_own_kernel(tmp_path: Path, warm_store: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, PICK.root], capture_output=True, text=True, check=False)
    assert done.stdout == "[1002]\n", done.stderr


def test_cloudpickle_sends_by_the_same_way() -> None:
    cloudpickle = pytest.importorskip("cloudpickle", reason="cloudpickle is not installed")
    assert pickle.loads(cloudpickle.dumps(KERNEL)) is KERNEL
