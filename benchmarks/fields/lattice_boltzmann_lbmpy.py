"""The peer of `lattice_boltzmann.py` in lbmpy: a step of BGK, generated, compiled and vectorised by pystencils.

Its arrays have a layer around the domain, [directions, z, y, x]; filling it is left out of the time. On D3Q19, fourth
moments of its equilibrium are those of Maxwell's, so that populations differ by squares of the velocity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pystencils as ps
from lbmpy import LBMConfig, LBMOptimisation, LBStencil, Method, Stencil, create_lb_update_rule


def make(directions: Any, dtype: str, omega: float, populations: Any, *, past_cache: bool) -> Callable[[], Any]:
    """Return a step from the populations, [outer, middle, directions, x], which returns the result as such an array."""
    stencil = LBStencil(Stencil.D2Q9 if len(directions) == 9 else Stencil.D3Q19)
    outer, middle, _, x = populations.shape
    domain = (x, outer) if stencil.D == 2 else (x, middle, outer)
    data = ps.create_data_handling(domain, periodicity=True, default_layout="fzyx")
    for name in ("source", "target"):
        data.add_array(name, values_per_cell=stencil.Q, dtype=np.dtype(dtype), alignment=64)
    method = LBMConfig(stencil=stencil, method=Method.SRT, relaxation_rate=omega, compressible=True, zero_centered=True)
    arrays = LBMOptimisation(
        symbolic_field=data.fields["source"], symbolic_temporary_field=data.fields["target"], field_layout="fzyx"
    )
    config = ps.CreateKernelConfig(default_dtype=dtype, target=ps.Target.X86_AVX512)
    config.cpu.openmp.enable = True
    config.cpu.vectorize.enable = True
    config.cpu.vectorize.assume_inner_stride_one = True
    config.cpu.vectorize.assume_aligned = past_cache
    config.cpu.vectorize.use_nontemporal_stores = past_cache
    kernel = ps.create_kernel(create_lb_update_rule(lbm_config=method, lbm_optimisation=arrays), config).compile()

    # Their order of directions, and the axes of their arrays.
    axes = [0, 2] if stencil.D == 2 else [0, 1, 2]
    ours = [tuple(int(one[axis]) for axis in axes) for one in directions]
    order = [ours.index(tuple(map(int, one))) for one in stencil.stencil_entries]
    inside = (slice(1, -1),) * stencil.D
    moved = np.moveaxis(populations.squeeze(1) if stencil.D == 2 else populations, -2, 0)[order]
    source, target = data.cpu_arrays["source"], data.cpu_arrays["target"]
    source[inside] = moved.transpose(*range(stencil.D, 0, -1), 0)
    data.synchronization_function(["source"])()

    class Result:
        """The result of the last step, in our layout where somebody looks."""

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            f = target[inside].transpose(stencil.D, *range(stencil.D - 1, -1, -1))[np.argsort(order)]
            return np.moveaxis(f, 0, -2).reshape(populations.shape).astype(dtype or f.dtype)

    def step() -> Any:
        data.run_kernel(kernel)
        return Result()

    return step
