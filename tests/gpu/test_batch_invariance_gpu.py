"""`batch_invariant=True` on a GPU: a row's bits do not depend on what is computed beside it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import dimorph as dm
from dimorph import attention as at
from dimorph.toolchain import nvidia_driver as driver
from support.attention_configs import Array
from support.invariance import VARIANTS, Sequences

pytestmark = pytest.mark.gpu

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
if driver.find() is None or not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU with a driver, or a torch without CUDA", allow_module_level=True)

LENGTHS, PAGES = [9000, 5000, 700, 130, 33], (16, 1, 7, 64, 128)
FAMILIES = ("sm80", "sm90") if torch.cuda.get_device_capability() == (9, 0) else ("sm80",)


def to_gpu(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    if array.dtype.name in ("bfloat16", "float8_e5m2"):
        plain = np.array(array.view(f"u{array.dtype.itemsize}"), order="C")
        return torch.from_numpy(plain).cuda().view(getattr(torch, array.dtype.name))
    return torch.from_numpy(np.array(array, order="C")).cuda()


def to_numpy(tensor: Any, dtype: Any) -> Array:
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.uint16).cpu().numpy()).view(dtype)
    return np.asarray(tensor.cpu().numpy())


class OnGpu:
    """Takes and gives what `Attention` does on the CPU; computes on the GPU, each other time by a plan."""

    def __init__(self, family: str, batch_invariant: bool) -> None:
        self.attend, self.option, self.calls = at.Attention(family=family), {"batch_invariant": batch_invariant}, 0

    def __call__(self, q: Array, cache: at.KVCache, *, variant: dm.BoundVariant, **options: Any) -> Any:
        bound = dm.BoundVariant(variant.variant, tuple(map(to_gpu, variant.args)))
        moved = at.KVCache(**{field.name: to_gpu(getattr(cache, field.name)) for field in fields(cache)})
        lengths = {"cu_seqlens_q": to_gpu(options["cu_seqlens_q"]), "max_seqlen_q": options["max_seqlen_q"]}
        given = {"variant": bound, **lengths, **self.option}
        self.calls += 1
        if self.calls % 2:
            out, lse = self.attend(to_gpu(q), moved, **given, return_lse=True)
        else:
            out, lse = self.attend.run(self.attend.plan(to_gpu(q), moved, **given), to_gpu(q), moved, return_lse=True)
        return to_numpy(out, q.dtype), to_numpy(lse, np.float32)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("variant", VARIANTS)
def test_bits_do_not_depend_on_the_batch(family: str, dtype: str, head_dim: int, variant: str) -> None:
    sequences, attend = Sequences(LENGTHS, head_dim, dtype, variant), OnGpu(family, True)
    alone = sequences.alone(attend)
    for _ in range(4):
        assert not sequences.differences(attend, alone, PAGES)


@pytest.mark.parametrize("variant", ["causal", "sinks"])
def test_neither_over_keys_in_8_bits(variant: str) -> None:
    sequences, attend = Sequences(LENGTHS, 128, "bfloat16", variant, float8=True), OnGpu("sm80", True)
    assert not sequences.differences(attend, sequences.alone(attend), PAGES)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_the_option_they_do(family: str) -> None:
    """The comparison can fail."""
    sequences, attend = Sequences(LENGTHS, 128, "bfloat16", "causal"), OnGpu(family, False)
    assert sequences.differences(attend, sequences.alone(attend), PAGES)
