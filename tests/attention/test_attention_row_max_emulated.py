"""The row max of the GPU kernels, whose source an emulator runs: exact where RowFinalize needs it, else raised late."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from dimorph.toolchain import nvidia_driver as driver
from support.emulated import Emulated, Emulator, missing
from support.paths import SUPPORT

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

HEADER, VARIANTS = "row_max.h", SUPPORT / "variants"
EXACT = dm.Variant("ExactRowMax", header=HEADER, root=VARIANTS)
ANY = dm.Variant("AnyRowMax", header=HEADER, root=VARIANTS)
MOST = 8 * np.log(2)


@pytest.fixture(params=["sm_80", "sm_90a"])
def attend(
    request: pytest.FixtureRequest, emulator: Emulator, shared_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Emulated:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)
    return Emulated(emulator, request.param, shared_store)


# Queries and keys whose logits rise slowly, by 5 in all, and are 0 for the keys behind the largest: whichever end a
# kernel begins at, no tile exceeds the maximum before it by much, and the short tile at the end, where the maximum is
# always raised, does not hold the largest.
KEYS, RISING = 330, 250
Q = np.ones((1, 40, 2, 32), np.float16)
K = np.zeros((1, KEYS, 2, 32), np.float16)
K[0, :RISING] = np.linspace(0, 5 / 32, RISING)[:, None, None]
V = np.random.default_rng(0).standard_normal((1, KEYS, 2, 32)).astype(np.float16)
LARGEST = float(K[0, RISING - 1, 0].astype(np.float64).sum())


def test_row_finalize_sees_the_largest_logit(attend: Emulated) -> None:
    _, lse = attend(Q, K, V, variant=EXACT(), scale=1.0, return_lse=True)
    np.testing.assert_allclose(lse, LARGEST, rtol=1e-6)


@pytest.mark.parametrize("variant", [ANY(), at.compose(ANY, at.SoftCap(1e4))], ids=["alone", "composed"])
def test_a_variant_may_do_without(attend: Emulated, variant: dm.BoundVariant) -> None:
    _, lse = attend(Q, K, V, variant=variant, scale=1.0, return_lse=True)
    assert (lse <= LARGEST * (1 + 1e-6)).all() and (lse >= LARGEST - MOST).all()
    assert (lse < LARGEST - 1).any()


def test_a_composition_is_exact_if_one_part_asks_for_it(attend: Emulated) -> None:
    _, lse = attend(Q, K, V, variant=at.compose(ANY, EXACT), scale=1.0, return_lse=True)
    np.testing.assert_allclose(lse, LARGEST, rtol=1e-6)


@pytest.mark.parametrize("sink", [-np.inf, -3.0, 2.5, 80.0])
def test_sinks_with_a_late_maximum(attend: Emulated, sink: float) -> None:
    variant = at.compose(at.Causal, at.Sinks(np.full(2, sink, np.float32)))
    expected, expected_lse = reference.attention(Q, K, V, variant=variant, scale=1.0)
    out, lse = attend(Q, K, V, variant=variant, scale=1.0, return_lse=True)
    np.testing.assert_allclose(out, expected, atol=2e-3)
    np.testing.assert_allclose(lse, expected_lse, rtol=2e-6)
