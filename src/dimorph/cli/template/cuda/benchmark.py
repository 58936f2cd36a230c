"""Time the kernel beside torch, on a GPU: python benchmark.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from my_kernel import my_kernel


def microseconds(run: Callable[[], object]) -> float:
    """Return the best time of a call on the GPU: what disturbs a measurement only adds to it."""
    run()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times = []
    for _ in range(20):
        begin.record()
        for _ in range(20):
            run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 20 * 1e3)
    return float(min(times))


def main() -> None:
    print(f"{'width':>5} {'kernel':>11} {'torch':>11} {'ratio':>7}")
    for width in (1024, 4096):
        x = torch.randn(8192, width, device="cuda", dtype=torch.float16)
        y = torch.empty_like(x)
        with_torch = partial(torch.nn.functional.rms_norm, x, (width,), eps=1e-6)
        my_kernel(x, y)
        torch.testing.assert_close(y, with_torch())
        ours = microseconds(partial(my_kernel, x, y))
        theirs = microseconds(with_torch)
        print(f"{width:5} {ours:8.1f} us {theirs:8.1f} us {theirs / ours:6.1f}x")


if __name__ == "__main__":
    main()
