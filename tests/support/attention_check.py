"""Run random problems (attention_configs.py) and check the results, in tests and by hand.

`PYTHONPATH=tests python -m support.attention_check SEED...` prints the problem of each seed and runs it. Kernels are
built into the store of the settings.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np

import dimorph as dm
from dimorph import attention as at
from dimorph.attention import reference
from support.attention_configs import Array, Config, Problem, build, config_of, sequence
from support.attention_parts import RULES

# Allowed errors in float32: of outputs, relative to the row's scale (`exact`); of a log-sum-exp, relative to 1 or to
# its absolute value, whichever is greater.
FLOAT32 = 2e-6
LSE = 4e-6


def exact(q: Array, k: Array, v: Array, bound: dm.BoundVariant, scale: float | None) -> tuple[Array, Array, Array]:
    """Return the output and lse in float64, and each row's scale, [..., heads, 1]: the largest sum of |weight * value|.

    A scale below the smallest normal number of the storage type is replaced by that number.
    """
    both = np.concatenate([v.astype(np.float64), np.abs(v.astype(np.float64))], -1)
    out, lse = reference.attention(q, k, both, variant=bound, scale=scale, rules=RULES)
    rows = out[..., v.shape[-1] :].max(-1, keepdims=True)
    return out[..., : v.shape[-1]], lse, np.where(rows > 0, np.maximum(rows, ml_dtypes.finfo(q.dtype).tiny), 0.0)


def naive(q: Array, k: Array, v: Array, bound: dm.BoundVariant, scale: float | None) -> Array:
    """Return the output of the textbook's three steps in float32, weights and output rounded to the storage type."""
    names = [part.name for part in bound.variant.parts or (bound.variant,)]
    softmax = "FlashSigmoid" not in names
    factor = np.float32((q.shape[-1] ** -0.5 if scale is None else scale) if softmax else 1.0)
    group = q.shape[2] // k.shape[2]
    q32, k32, v32 = (np.moveaxis(x[0].astype(np.float32), 1, 0) for x in (q, k, v))
    k32, v32 = np.repeat(k32, group, 0), np.repeat(v32, group, 0)
    logits = factor * (q32 @ k32.swapaxes(-1, -2))
    dead = np.zeros(logits.shape, bool)
    i, j = np.arange(q.shape[1])[:, None], np.arange(k.shape[1])
    args, sink = list(bound.args), None
    for part in bound.variant.parts or (bound.variant,):
        own, args = args[: len(part.params)], args[len(part.params) :]
        logits = RULES[part.name](logits, 0, i, j, *own).astype(np.float32)
        dead |= np.isneginf(logits)
        sink = own[0] if part.name == "Sinks" else sink
    if softmax:
        # Without a finite bound, rows without keys would be NaN; a sink is one more key.
        top = np.maximum(logits.max(-1, initial=-1e30), -1e30 if sink is None else sink[:, None])[..., None]
        weights = np.exp(logits - top)
        total = weights.sum(-1, keepdims=True) + (0 if sink is None else np.exp(sink[:, None, None] - top))
        logits = weights / np.where(total == 0, np.float32(1), total)
    weights = np.where(dead, np.float32(0), logits).astype(q.dtype).astype(np.float32)
    return np.moveaxis(weights @ v32, 0, 1)[None].astype(q.dtype)


def error(out: Array, expected: Array, scale: Array) -> float:
    """Return the largest error of an element, relative to its row's scale; infinite if the scale is 0 and it is not."""
    distance = np.abs(out.astype(np.float64) - expected)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where((scale == 0) & (distance == 0), 0.0, distance / scale)
    return float(relative.max(initial=0.0))


def allowed(naive_out: Array, expected: Array, scale: Array) -> float:
    """Return the allowed error for a storage type: twice that of the naive computation, and the rounding of the output.

    The error of rounding is at most half a unit in the last place, or half the smallest subnormal number.
    """
    info = ml_dtypes.finfo(naive_out.dtype)
    half = np.maximum(np.abs(expected) * float(info.eps), float(info.smallest_subnormal)) / 2
    rounding = np.where(scale > 0, half / np.where(scale > 0, scale, 1.0), 0.0)
    return 2 * error(naive_out, expected, scale) + float(rounding.max(initial=0.0)) + FLOAT32


def check(attend: at.Attention, config: Config) -> dict[str, float]:
    """Run the problem of a config and check the results.

    Returns:
        The largest error of "out" and of "lse", as a fraction of the allowed one.

    Raises:
        AssertionError: the result is wrong; the message says how.
    """
    problem = build(config)
    out, lse = _run(attend, problem)
    used = {"out": 0.0, "lse": 0.0}
    for b in range(config.shape.batch):
        rows = None if lse is None else sequence(problem, lse, b, False)
        for name, share in judge(problem, b, sequence(problem, out, b, False), rows).items():
            used[name] = max(used[name], share)
    return used


def _run(attend: at.Attention, problem: Problem) -> tuple[Array, Array | None]:
    """Call attention, and check that memory around the results and rows outside of all sequences are unchanged."""
    config, ragged = problem.config, problem.config.shape.ragged
    arguments: dict[str, Any] = {"variant": problem.bound, "scale": config.scale, "return_lse": config.lse != "none"}
    if problem.cu_seqlens:
        arguments |= {"cu_seqlens_q": problem.cu_seqlens[0], "cu_seqlens_k": problem.cu_seqlens[1]}
    if config.own_out:
        arguments["out"] = problem.out.array[0] if ragged else problem.out.array
    if config.lse == "given":
        arguments["lse"] = problem.lse.array[0, ..., 0] if ragged else problem.lse.array[..., 0]
    results = attend(*problem.inputs.values(), **arguments)
    out, lse = results if config.lse != "none" else (results, None)
    for name, placed, result in (("out", problem.out, out), ("lse", problem.lse, lse)):
        if name not in arguments:
            continue
        assert result is arguments[name], f"{name} is not the array that was given"
        around = placed.flat[~placed.inside]
        untouched = np.full_like(around, np.nan)
        assert around.tobytes() == untouched.tobytes(), f"memory around {name} was written"
        after = result[sum(config.shape.queries) :] if ragged else result[:0]
        assert np.isnan(after).all(), f"{name} was written after the last sequence"
    return out, lse


def judge(problem: Problem, b: int, out: Array, lse: Array | None) -> dict[str, float]:
    """Check the results of sequence b; return the largest errors, as `check` does."""
    config, bound = problem.config, problem.alone(b)
    q, k, v = (sequence(problem, problem.inputs[name], b, name != "q") for name in "qkv")
    loose = np.zeros(out.shape, bool)  # elements that a planted NaN or infinity may reach
    if problem.hit and problem.hit[0] == b:
        (q, k, v), loose = _without_hit(problem, (q, k, v), out, lse)
    expected, expected_lse, scale = exact(q, k, v, bound, config.scale)
    clean = np.where(loose, expected.astype(out.dtype), out)
    found = error(clean, expected, scale)
    bar = FLOAT32
    if out.dtype != np.float32:
        bar = allowed(np.where(loose, clean, naive(q, k, v, bound, config.scale)), expected, scale)
    assert found <= bar, f"sequence {b}: out is off by {found:.3g} of its row's scale, allowed is {bar:.3g}"
    if lse is None:
        return {"out": found / bar}
    reached = loose.all(-1)
    actual, wanted = np.where(reached, 0.0, lse), np.where(reached, 0.0, expected_lse)
    for kind in (np.isneginf, np.isnan):
        assert np.array_equal(kind(actual), kind(wanted)), f"sequence {b}: lse: {kind.__name__} elsewhere"
    finite = np.isfinite(wanted)
    off = np.abs(actual[finite] - wanted[finite]) / np.maximum(1.0, np.abs(wanted[finite]))
    assert off.max(initial=0.0) <= LSE, f"sequence {b}: lse is off by {off.max():.3g}"
    return {"out": found / bar, "lse": float(off.max(initial=0.0)) / LSE}


def _without_hit(
    problem: Problem, inputs: tuple[Array, Array, Array], out: Array, lse: Array | None
) -> tuple[list[Array], Array]:
    """Return the inputs with a 0 for the planted element, and the elements of the output that it may reach.

    Checks that it does reach those where its weight is not negligible.
    """
    assert problem.hit
    value, _, name = problem.config.nonfinite.split()
    b, row, head, dim = problem.hit
    q, k, v = (x.copy() for x in inputs)
    (q, k, v)["qkv".index(name)][0, row, head, dim] = 0
    if name == "q":  # the element reaches its row if the row sees any key
        probe = np.ones_like(v, np.float64)
    else:
        probe = np.zeros(v.shape)
        probe[0, row, head] = 1
    weights, _ = reference.attention(q, k, probe, variant=problem.alone(b), scale=problem.config.scale, rules=RULES)
    loose = weights > 0
    if name == "q":
        mine = np.zeros(loose.shape, bool)
        mine[0, row, head] = True
        loose &= mine
    if name == "v":
        loose[..., np.arange(v.shape[-1]) != dim] = False
    sure = loose & (weights > 1e-20)  # below, a weight may be 0 in float32
    kind = np.isnan if value == "nan" else np.isinf
    assert kind(out[sure].astype(np.float32)).all(), f"sequence {b}: {value} at {name}[{row}, {head}, {dim}] is lost"
    if lse is not None and name != "v":
        assert np.isnan(lse[sure.all(-1)]).all(), f"sequence {b}: {value} in {name} is lost in lse"
    return [q, k, v], loose


def failures(attend: at.Attention, configs: list[Config]) -> list[str]:
    """Check each config; return a text with the config and the error for each that fails."""
    found = []
    for config in configs:
        try:
            check(attend, config)
        except Exception as error:
            found.append(f"{config}\n  {type(error).__name__}: {error}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="+", type=int)
    parser.add_argument("--threads", type=int, default=1, help="Python threads that run the problems side by side")
    options = parser.parse_args()

    def run(seed: int) -> int:
        config = config_of(seed)
        print(config, flush=True)
        found = failures(at.attention, [config])
        for text in found:
            print(f"seed {seed} failed: {text}", flush=True)
        return len(found)

    with ThreadPoolExecutor(options.threads) as pool:
        failed = sum(pool.map(run, options.seeds))
    print(f"{len(options.seeds)} seeds, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
