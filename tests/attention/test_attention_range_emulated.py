"""The GPU kernels' own source, run on the CPU by an emulator, with logits and scales at the end of the range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from dimorph.toolchain import nvidia_driver as driver
from support.attention_range import KEYS, MANY_KEYS, VARIANTS, check
from support.emulated import Emulated, Emulator, missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

ARCHS = pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])


@pytest.fixture(autouse=True)
def gpus(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find", lambda: emulator.driver)


@pytest.mark.parametrize(("queries", "keys"), [(8, KEYS), (70, KEYS), (8, MANY_KEYS)])
@ARCHS
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_up_to_the_largest_float(
    emulator: Emulator, shared_store: Path, name: str, arch: str, queries: int, keys: int
) -> None:
    check(Emulated(emulator, arch, shared_store), name, "bfloat16", queries, keys)


@ARCHS
@pytest.mark.parametrize(
    ("variant", "scales"),
    [(at.Plain(), (1e6, -1e6)), (at.SoftCap(3e38), (1e29, -1e29)), (at.ALiBi(np.ones(2, np.float32)), (1e9, -1e29))],
    ids=["plain", "cap", "slopes"],
)
def test_large_scales_leave_the_largest_logit(
    emulator: Emulator, shared_store: Path, arch: str, variant: dm.BoundVariant, scales: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(6)
    q, k, v = (rng.standard_normal((1, n, 2, 32)).astype(np.float16) for n in (70, MANY_KEYS, MANY_KEYS))
    for scale in scales:
        expected, lse = reference.attention(q, k, v, variant=variant, scale=scale)
        out, own = Emulated(emulator, arch, shared_store)(q, k, v, variant=variant, scale=scale, return_lse=True)
        np.testing.assert_allclose(out, expected, atol=2e-3)
        np.testing.assert_allclose(own, lse, rtol=4e-6)


@ARCHS
@pytest.mark.parametrize("variant", [at.Plain(), at.Causal(), at.Sinks(np.zeros(2, np.float32))], ids=str)
def test_a_scale_too_large_is_refused(
    emulator: Emulator, shared_store: Path, arch: str, variant: dm.BoundVariant
) -> None:
    attend, q = Emulated(emulator, arch, shared_store), np.zeros((1, 8, 2, 32), np.float16)
    for scale in (2e6, -2e6, 1e30):
        with pytest.raises(ValueError, match="'scale': expected a number from -1048576 to 1048576 on a GPU, got"):
            attend(q, q, q, variant=variant, scale=scale)
    attend(q, q, q, variant=variant, scale=2.0**20)
