"""`merge_states` on the CPU: against its definition in float64, and against attention over all keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dimorph import attention as at
from dimorph.attention.kernels import merge_states_cpu
from support.attention_configs import DTYPES
from support.forms import Form
from support.merging import check, merge_problem

pytestmark = pytest.mark.usefixtures("warm_store")

RNG = np.random.default_rng(0)
OUTS, LSES = RNG.standard_normal((3, 5, 4, 16), dtype=np.float32), RNG.standard_normal((3, 5, 4), dtype=np.float32)


def test_500_random_problems() -> None:
    found = [check(merge_problem(seed), at.merge_states) for seed in range(500)]
    assert not any(found), "\n".join(filter(None, found))


def test_both_forms_give_the_same_bits(mode: Form) -> None:
    """The function takes modules of its own, so the kernel is called as it calls it."""
    module = mode.load(merge_states_cpu, dtype="float32")
    out, lse = np.empty_like(OUTS[0]), np.empty_like(LSES[0])
    module.merge_states(out, lse, False, *(array for part in zip(OUTS, LSES, strict=True) for array in part))
    expected = at.merge_states(list(OUTS), list(LSES))
    assert np.array_equal(out, expected[0]) and np.array_equal(lse, expected[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_of_the_keys_are_attention_over_all(dtype: str) -> None:
    q, k, v = (RNG.standard_normal((2, n, 4, 32)).astype(DTYPES[dtype]) for n in (7, 60, 60))
    cuts = [(0, 13), (13, 13), (13, 60)]
    states = [at.attention(q, k[:, a:b].copy(), v[:, a:b].copy(), return_lse=True) for a, b in cuts]
    out, lse = at.merge_states([out for out, _ in states], [lse for _, lse in states])
    expected, expected_lse = at.attention(q, k, v, return_lse=True)
    bar = {"float32": 1e-6, "bfloat16": 1e-2, "float16": 1e-3}[dtype]
    assert out.dtype == q.dtype and abs(out.astype(np.float64) - expected.astype(np.float64)).max() < bar
    assert abs(lse - expected_lse).max() < 2e-6


def test_one_part_keeps_its_bits() -> None:
    out, lse = at.merge_states([OUTS[0]], [LSES[0]])
    assert np.array_equal(out, OUTS[0]) and np.array_equal(lse, LSES[0])


def test_results_of_torch_are_tensors_and_given_arrays_are_written_to() -> None:
    outs, lses = torch.from_numpy(OUTS), torch.from_numpy(LSES)
    expected = at.merge_states(OUTS, LSES)
    with torch.no_grad():
        out, lse = at.merge_states(outs, lses)
        assert isinstance(out, torch.Tensor) and isinstance(lse, torch.Tensor)
        assert np.array_equal(out.numpy(), expected[0]) and np.array_equal(lse.numpy(), expected[1])
        wide, given = torch.zeros(5, 4, 20), torch.zeros(4, 5).T
        assert at.merge_states(tuple(outs), tuple(lses), out=wide[..., :16], lse=given)[1] is given
    assert np.array_equal(wide[..., :16].numpy(), expected[0]) and (wide[..., 16:] == 0).all()
    assert np.array_equal(given.numpy(), expected[1])


def test_nothing_to_merge() -> None:
    out, lse = at.merge_states(OUTS[:, :0], LSES[:, :0])
    assert out.shape == (0, 4, 16) and lse.shape == (0, 4)


REFUSED: dict[str, tuple[Any, Any, dict[str, Any], type[Exception], str]] = {
    "numbers": (
        3,
        LSES,
        {},
        TypeError,
        "'outs': expected a sequence of arrays, or one [parts, ..., heads, head_dim], g",
    ),
    "an array and a list": (
        OUTS,
        list(LSES),
        {},
        TypeError,
        "'lses': expected an array [parts, ..., heads], as 'outs'",
    ),
    "a list and an array": (list(OUTS), LSES, {}, TypeError, "'lses': expected a sequence of arrays, as 'outs' is one"),
    "an item that is none": ([OUTS[0], 3], list(LSES[:2]), {}, TypeError, "'outs[1]': expected an array, got 3"),
    "no parts": ([], [], {}, ValueError, "'outs': expected at least one array, got none"),
    "no stacked parts": (OUTS[:0], LSES[:0], {"out": OUTS[0], "lse": LSES[0]}, ValueError, "'outs': expected 1 to"),
    "many dtypes": (
        [*[OUTS[0]] * 8, OUTS[0].astype(np.float16)],
        [LSES[0]] * 9,
        {},
        TypeError,
        "'outs[8]': expected dtype float32, got float16",
    ),
    "many shapes": (
        [OUTS[0]] * 9,
        [*[LSES[0]] * 8, LSES[0, :2]],
        {},
        ValueError,
        "'lses[8]': expected shape (5, 4), got",
    ),
    "fewer log-sum-exps": (
        list(OUTS),
        list(LSES[:2]),
        {},
        ValueError,
        "'lses': expected 3 arrays, as in 'outs', got 2",
    ),
    "another shape": (
        [OUTS[0], OUTS[1, :4]],
        list(LSES[:2]),
        {},
        ValueError,
        "'outs[1]': expected size 5 in dimension 0",
    ),
    "other heads": (list(OUTS[:1]), [LSES[0, :, :3]], {}, ValueError, "'lses[0]': expected size 4 in dimension 1"),
    "fewer dimensions": (list(OUTS), [LSES[0, 0]] * 3, {}, ValueError, "'lses[0]': expected 2 dimensions, got 1"),
    "no heads": (
        [OUTS[0, 0, 0]],
        [LSES[0, 0]],
        {},
        ValueError,
        "'outs': expected [..., heads, head_dim] of at most 8",
    ),
    "another dtype": (
        [OUTS[0], OUTS[1].astype(np.float16)],
        list(LSES[:2]),
        {},
        TypeError,
        "'outs[1]': expected the dtype of the first part, float32, got float16",
    ),
    "float64": (
        OUTS.astype(np.float64),
        LSES,
        {},
        TypeError,
        "'outs': expected dtype float32, bfloat16 or float16, got",
    ),
    "wide log-sum-exps": (OUTS, LSES.astype(np.float64), {}, TypeError, "'lses': expected dtype float32, got float64"),
    "strided rows": (
        list(OUTS[..., ::2]),
        list(LSES),
        {},
        ValueError,
        "'outs[0]': expected a contiguous last dimension",
    ),
    "two strides": (
        OUTS.reshape(3, 5, 1, 4, 16).repeat(2, 2)[:, ::2],
        LSES.reshape(3, 5, 1, 4).repeat(2, 2)[:, ::2],
        {},
        ValueError,
        "'outs': expected stride 128 in dimension 1, so that one stride leads through all dimensions before the heads",
    ),
    "its own memory": (
        OUTS,
        LSES,
        {"out": OUTS[1]},
        ValueError,
        "'out': expected memory of its own, got that of 'outs'",
    ),
    "lse over a part": (
        list(OUTS),
        list(LSES),
        {"lse": LSES[1]},
        ValueError,
        "'lse': expected memory of its own, got th",
    ),
    "one row for all": (
        OUTS,
        LSES,
        {"out": np.lib.stride_tricks.as_strided(np.zeros(64, np.float32), (5, 4, 16), (0, 64, 4))},
        ValueError,
        "'out': expected elements that share no memory",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    outs, lses, given, kind, said = REFUSED[case]
    before = OUTS.copy(), LSES.copy()
    with pytest.raises(kind) as caught:
        at.merge_states(outs, lses, **given)
    assert str(caught.value).startswith(f"merge_states: argument {said}")
    assert np.array_equal(OUTS, before[0]) and np.array_equal(LSES, before[1])


def test_tensors_that_require_grad_are_refused() -> None:
    outs, lses = torch.from_numpy(OUTS), torch.from_numpy(LSES)
    with pytest.raises(RuntimeError, match="merge_states: argument 'outs': expected tensors that require no grad"):
        at.merge_states(outs.clone().requires_grad_(), lses)
