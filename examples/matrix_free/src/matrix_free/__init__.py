"""Operators of finite elements on hexahedra without a matrix: mass, diffusion, or a physics of the caller's.

The operators of the CEED bake-off problems BP1 and BP3 (https://ceed.exascaleproject.org/bps), of continuous elements
of any degree p with Gauss-Lobatto nodes, on p + 2 Gauss points in each direction.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import dimorph as dm
import numpy as np
from numpy.typing import DTypeLike, NDArray

from .layout import batched, blocks, layout
from .mesh import Floats, Mesh, grid, lobatto, positions, trilinear

__all__ = ["DIFFUSION", "GPU_KERNEL", "HELMHOLTZ", "KERNEL", "MASS", "Mesh", "Operator", "conjugate_gradients", "grid"]

MASS = dm.Variant("Mass", header="physics.h")
DIFFUSION = dm.Variant("Diffusion", header="physics.h")
HELMHOLTZ = dm.Variant("Helmholtz", header="physics.h", params=[dm.scalar("shift"), dm.scalar("contrast")])
MOST = 20  # degree

_AXES = [
    dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
    dm.int_axis("degree", "DEGREE", list(range(1, 9)), accepts=lambda degree: 0 < degree <= MOST),
    dm.variant_axis("physics", "PHYSICS_OF_POINT", default=MASS, values=[MASS, DIFFUSION]),
]
KERNEL = dm.Kernel(name="matrix_free", functions=["apply"], axes=_AXES)
GPU_KERNEL = dm.Kernel(
    name="matrix_free_gpu",
    entry="matrix_free.cc",  # that of KERNEL, with its header
    config="matrix_free_config.h",
    functions=["apply"],
    device=["matrix_free.cu"],
    archs=["sm_80", "sm_90"],
    # A thread for each line of points: so many elements in a block that it has about 256.
    axes=[*_AXES, dm.int_axis("elements", "ELEMENTS", [], choose=lambda v: max(1, 256 // (int(v["degree"]) + 2) ** 2))],
)


@cache
def _loaded(kernel: dm.Kernel, dtype: str, degree: int, physics: dm.Variant) -> dm.Module:
    return kernel.load(dtype=dtype, degree=degree, physics=physics)


class Operator:
    """y = A x, for a mesh, a degree and a physics.

    Unknowns are values at the nodes. Those on the boundary come last: `inner` of `unknowns` are not on it. `arrays` are
    what a call reads besides x: the elements' maps and numbers of unknowns, chunks and colours (matrix_free.cc).

    Args:
        mesh: its elements.
        degree: of the polynomials, 1 to 20; those beyond 8 are compiled when they are asked for. Diffusion in float64 goes up to
            19 on GPUs from 9.0 to 11, to 17 on 8.0 and to 13 on others, whose blocks have less shared memory.
        physics: `MASS` (BP1), `DIFFUSION` (BP3), `HELMHOLTZ(shift, contrast)` or another variant.
        dtype: float32 or float64, of vectors and arithmetic.
        to_gpu: for an operator on a GPU, where x and out lie there: a function that returns a copy of a NumPy array on
            the GPU, such as `lambda array: torch.from_numpy(array).cuda()`.
        module: of `KERNEL` or `GPU_KERNEL`; by default one for exactly this degree, physics and dtype.

    Raises:
        ValueError, TypeError: an argument is of another kind; the message names it.
    """

    def __init__(
        self,
        mesh: Mesh,
        degree: int,
        physics: dm.Variant | dm.BoundVariant = MASS,
        dtype: DTypeLike = np.float64,
        to_gpu: Callable[[NDArray[Any]], Any] | None = None,
        module: dm.Module | None = None,
    ) -> None:
        if not 1 <= degree <= MOST:
            raise ValueError(f"Operator: argument 'degree': expected 1 to {MOST}, got {degree}")
        self.mesh, self.degree, self.dtype = mesh, degree, np.dtype(dtype)
        self._physics = physics if isinstance(physics, dm.BoundVariant) else physics()
        lanes = 1 if to_gpu else 64 // self.dtype.itemsize
        found = self._layout = layout(mesh, degree, lanes, 1 if to_gpu else _threads())
        self.unknowns, self.inner = found.unknowns, found.inner
        if self.unknowns >= 2**31:
            raise ValueError(f"Operator: argument 'mesh': expected fewer than 2^31 unknowns, got {self.unknowns}")
        maps = batched(trilinear(mesh.corners[found.order]).astype(self.dtype), found, lanes)
        starts = batched(found.starts.astype(np.int32), found, lanes)
        on_device = to_gpu or np.asarray
        self.arrays = (on_device(maps), on_device(starts), found.chunks, found.colours)
        kernel = GPU_KERNEL if to_gpu else KERNEL
        self._apply = (module or _loaded(kernel, self.dtype.name, degree, self._physics.variant)).apply

    def __call__(self, x: Any, out: Any = None) -> Any:
        """Return A x, in `out` where it is given, as it is on a GPU.

        x and out: [unknowns], of the operator's dtype, two arrays; on a GPU the call runs on the current stream.
        """
        if tuple(x.shape) != (self.unknowns,):
            raise ValueError(f"Operator: argument 'x': expected shape ({self.unknowns},), got {tuple(x.shape)}")
        y = np.empty_like(x) if out is None else out
        self._apply(*self.arrays, x, y, self.degree, self._physics.variant.name, *self._physics.args)
        return y

    def nodes(self) -> Floats:
        """Return the position of each unknown's node, [unknowns, 3]."""
        found = np.empty((self.unknowns, 3))
        found[self.numbers()] = positions(self.mesh.corners, lobatto(self.degree))
        return found

    def numbers(self) -> NDArray[np.int64]:
        """Return the unknown of each node of each element of the mesh, [elements, nodes^3], the first direction first."""
        node_block, offset = blocks(self.degree)
        numbers = np.empty((self.mesh.elements, len(offset)), np.int64)
        numbers[self._layout.order] = self._layout.starts[:, node_block] + offset
        return numbers


def conjugate_gradients(
    operator: Operator, right: NDArray[Any], tolerance: float = 1e-10, most: int = 10_000, boundary: bool = True
) -> tuple[NDArray[Any], int]:
    """Solve A x = right without a preconditioner; return x and the number of iterations.

    Args:
        operator: symmetric and positive definite on the unknowns that are solved for.
        right: [unknowns].
        tolerance: of the norm of the residual, relative to that of `right`.
        most: iterations.
        boundary: whether the unknowns on the boundary are solved for; otherwise they are zero.

    Raises:
        RuntimeError: the tolerance was not reached.
    """
    solved = operator.unknowns if boundary else operator.inner
    x, direction, image = (np.zeros_like(right) for _ in range(3))
    residual = np.array(right)
    residual[solved:] = 0
    direction[:] = residual
    square = float(residual @ residual)
    goal = tolerance**2 * square
    for iteration in range(most):
        if square <= goal:
            return x, iteration
        operator(direction, image)
        image[solved:] = 0
        step = right.dtype.type(square / float(direction @ image))
        x += step * direction
        residual -= step * image
        before, square = square, float(residual @ residual)
        direction *= right.dtype.type(square / before)
        direction += residual
    raise RuntimeError(
        f"conjugate_gradients: residual {(square / goal) ** 0.5:.1e} times the goal after {most} iterations"
    )


def _threads() -> int:
    return int(os.environ.get("DIMORPH_NUM_THREADS") or len(os.sched_getaffinity(0)))
