"""Flow of a fluid by the lattice Boltzmann method, in two and three dimensions, on the CPU and on a GPU.

Lengths are in cells and times in steps. The method, with the source of each formula: Krueger et al. 2017, "The Lattice
Boltzmann Method".
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import Any

import dimorph as dm
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

BGK = dm.Variant("BGK", header="collisions.h", params=[dm.scalar("viscosity")])
TRT = dm.Variant("TRT", header="collisions.h", params=[dm.scalar("viscosity"), dm.scalar("magic")])
MRT = dm.Variant("MRT", header="collisions.h", params=[dm.scalar("viscosity"), dm.scalar("bulk"), dm.scalar("ghost")])

AXES = [
    dm.dtype_axis("dtype", "DType", ["float32", "float64"]),
    dm.int_axis("directions", "Q", [9, 19], accepts=lambda q: q == 27),
    dm.variant_axis("collision", "COLLISION", default=BGK, values=[BGK, TRT, MRT]),
]

KERNEL = dm.Kernel(
    name="lattice_boltzmann",
    functions=["advance"],
    axes=[
        *AXES,
        # Steps that a tile advances by while it is in the cache, and its rows and planes. Deeper tiles compute more of
        # their neighbours' cells; measured on Zen 5, 4 steps take the least time, and the others are within a tenth.
        dm.int_axis("depth", "DEPTH", [], choose=lambda v: 4),
        dm.int_axis("rows", "ROWS", [], choose=lambda v: 32),
        dm.int_axis("planes", "PLANES", [], choose=lambda v: 128 if v["directions"] == 9 else 64),
    ],
)

GPU_KERNEL = dm.Kernel(
    name="lattice_boltzmann_gpu",
    entry="lattice_boltzmann.cc",
    config="lattice_boltzmann_config.h",
    functions=["advance"],
    device=["lattice_boltzmann.cu"],
    archs=["sm_80", "sm_90"],
    axes=[*AXES, dm.int_axis("block", "BLOCK", [], choose=lambda v: 128)],
)


class Kind(IntEnum):
    """Kinds of cells; walls lie half-way between a cell of the wall and the fluid."""

    FLUID = 0
    WALL = 1
    MOVING = 2  # a wall that moves at the boundary velocity
    OPEN = 3  # at equilibrium, at density 1 and the boundary velocity


def directions(count: int) -> Array:
    """Return the directions of a lattice of 9, 19 or 27: [count, 3], components along x, y and z, in kernel order."""
    pairs = [(1, 0, 0), (0, 0, 1), (1, 0, 1), (-1, 0, 1), (0, 1, 0), (1, 1, 0), (1, -1, 0), (0, 1, 1), (0, 1, -1)]
    pairs += [(1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1)]
    both = [(0, 0, 0), *(tuple(sign * c for c in pair) for pair in pairs[: count // 2] for sign in (1, -1))]
    # In two dimensions, y is the outer axis of the kernel, and there is no middle one.
    return np.asarray(np.array(both)[:, [0, 2, 1] if count == 9 else [0, 1, 2]])


def weights(count: int) -> Array:
    """Return the weights of the directions: [count], float64."""
    of = {9: (4 / 9, 1 / 9, 1 / 36), 19: (1 / 3, 1 / 18, 1 / 36), 27: (8 / 27, 2 / 27, 1 / 54, 1 / 216)}[count]
    return np.asarray(np.array(of)[np.abs(directions(count)).sum(1)])


def equilibrium(density: ArrayLike, velocity: ArrayLike, count: int) -> Array:
    """Return equilibrium populations less their weights, w (rho + rho (3 c.u + 9/2 (c.u)^2 - 3/2 u.u)) - w.

    Args:
        density: rho, of any shape.
        velocity: u, of that shape and one axis more, of 2 or 3 components.
        count: the directions of the lattice.

    Returns:
        [*shape, count], float64.
    """
    rho, u = np.asarray(density, np.float64)[..., None], np.asarray(velocity, np.float64)
    c = u @ directions(count)[:, : u.shape[-1]].T
    square = (u * u).sum(-1, keepdims=True)
    return np.asarray(weights(count) * (rho - 1 + rho * (3 * c + 4.5 * c * c - 1.5 * square)))


class Flow:
    """A fluid on a periodic lattice, with walls, moving walls and open cells in it.

    Args:
        shape: cells, (y, x) or (z, y, x); x is a multiple of 16.
        collision: the model with its arguments, e.g. `BGK(viscosity=0.02)`; any `dm.Variant` for this kernel.
        kinds: the `Kind` of each cell, of that shape. Default: all are fluid.
        boundary: velocity of moving walls and open cells, x first, in cells a step; below 0.1, or errors of
            compressibility are seen.
        dtype: float32 or float64.
        device: "cpu", or a device of torch, such as "cuda".
        lattice: directions: 9 in two dimensions, 19 or 27 in three. Default: 9 or 19.

    Attributes:
        populations: f less its weights, an array of NumPy or torch: [z, y, directions, x], or [y, 1, directions, x] in
            two dimensions.

    Raises:
        ValueError, TypeError: an argument is of another shape or kind, or out of range; the message names it.
        RuntimeError: an earlier `advance` was interrupted, so the state is part of a step; `start` sets it anew.
    """

    def __init__(
        self,
        shape: Sequence[int],
        collision: dm.BoundVariant,
        *,
        kinds: ArrayLike | None = None,
        boundary: Sequence[float] = (0.0, 0.0, 0.0),
        dtype: str = "float32",
        device: str = "cpu",
        lattice: int | None = None,
    ) -> None:
        if len(shape) not in (2, 3):
            raise ValueError(f"Flow: argument 'shape': expected (y, x) or (z, y, x), got {tuple(shape)}")
        if min(shape) < 1 or shape[-1] % 16:
            raise ValueError(
                "Flow: argument 'shape': expected one cell or more along each axis, and a multiple of 16 along x, got "
                f"{tuple(shape)}"
            )
        self.shape, self.collision = tuple(shape), collision
        lattices = {2: (9,), 3: (19, 27)}[len(shape)]
        self.lattice = lattices[0] if lattice is None else lattice
        if self.lattice not in lattices:
            several = " or ".join(map(str, lattices))
            raise ValueError(
                f"Flow: argument 'lattice': expected {several} directions for the shape {self.shape}, got {lattice}"
            )
        if len(boundary) not in (len(shape), 3) or not np.isfinite(boundary).all():
            raise ValueError(
                f"Flow: argument 'boundary': expected {len(shape)} finite components, got {tuple(boundary)}"
            )
        _check_parameters(collision)
        outer, middle, x = (self.shape[0], 1, self.shape[1]) if len(shape) == 2 else self.shape
        given = np.zeros(self.shape) if kinds is None else np.asarray(kinds)
        if given.shape != self.shape:
            raise ValueError(f"Flow: argument 'kinds': expected shape {self.shape}, got {given.shape}")
        unknown = given[~np.isin(given, list(Kind))]
        if unknown.size:
            raise ValueError(f"Flow: argument 'kinds': expected whole numbers from 0 to {max(Kind)}, got {unknown[0]}")
        vx, vy, vz = (*boundary, 0.0)[:3]
        self._velocity = (vx, 0.0, vy) if len(shape) == 2 else (vx, vy, vz)
        self.populations = zeros((outer, middle, self.lattice, x), dtype, device)
        self._other = zeros((outer, middle, self.lattice, x), dtype, device)
        self._kinds = zeros((outer, middle, x), "uint8", device)
        self._put(self._kinds, given.astype(np.uint8))
        self._module = loaded(collision.variant, on_gpu=device != "cpu")
        self._whole = True  # False while the arrays are written and, if that is interrupted, until the next start

    def start(self, density: ArrayLike = 1.0, velocity: ArrayLike | None = None) -> None:
        """Set all cells to equilibrium at a density, [*shape], and a velocity, [*shape, components]."""
        still = np.zeros((*self.shape, len(self.shape)))
        u = still if velocity is None else np.broadcast_to(np.asarray(velocity), still.shape)
        f = equilibrium(np.broadcast_to(np.asarray(density), self.shape), u, self.lattice)
        self._whole = False
        self._put(self.populations, np.moveaxis(f, -1, -2))
        self._whole = True

    def advance(self, steps: int) -> None:
        """Advance by a number of steps."""
        self._expect_whole("advance")
        arrays, model = (self.populations, self._other, self._kinds), self.collision
        self._whole = False
        try:
            swapped = self._module.advance(*arrays, *self._velocity, steps, model.variant.name, *model.args)
        except (TypeError, ValueError):  # an argument is refused before anything is written
            self._whole = True
            raise
        if swapped:
            self.populations, self._other = self._other, self.populations
        self._whole = True

    def density(self) -> Array:
        """Return the density of each cell, [*shape], float64."""
        self._expect_whole("density")
        return np.asarray(1 + self._f().sum(-2).reshape(self.shape))

    def velocity(self) -> Array:
        """Return the velocity of each cell, [*shape, components], x first, in cells a step, float64."""
        self._expect_whole("velocity")
        momentum = np.tensordot(self._f(), directions(self.lattice)[:, : len(self.shape)], axes=(-2, 0))
        return np.asarray(momentum.reshape((*self.shape, len(self.shape))) / self.density()[..., None])

    def _expect_whole(self, call: str) -> None:
        if not self._whole:
            raise RuntimeError(
                f"Flow.{call}: an earlier call was interrupted, so the populations are part of a step: set them by `start`"
            )

    def _f(self) -> Array:
        f = self.populations
        return np.asarray(f if isinstance(f, np.ndarray) else f.cpu().numpy(), np.float64)

    @staticmethod
    def _put(array: Any, values: Array) -> None:
        if not isinstance(array, np.ndarray):
            values = array.new_tensor(values)
        array[...] = values.reshape(array.shape)


def _check_parameters(model: dm.BoundVariant) -> None:
    """Refuse parameters of this package's models with which no flow is stable; those of other models are theirs."""
    if model.variant not in (BGK, TRT, MRT):
        return
    for param, value in zip(model.variant.params, model.args, strict=True):
        most = 2 if param.name == "ghost" else np.inf  # `ghost` is a rate
        if not 0 < value < most:
            expected = "a finite number above 0" if most > 2 else "a rate between 0 and 2"
            raise ValueError(
                f"Flow: argument 'collision': {model.variant.name}: {param.name}: expected {expected}, got {value}"
            )


@cache
def loaded(collision: dm.Variant, *, on_gpu: bool = False) -> dm.Module:
    """Return the module for a collision model: of the set built ahead where that has the model, else compiled."""
    return (GPU_KERNEL if on_gpu else KERNEL).load(collision=collision)


def zeros(shape: Sequence[int], dtype: str, device: str = "cpu") -> Any:
    """Return an array of NumPy, at a multiple of 64 bytes, which is what the kernel stores at a time; or one of torch."""
    if device != "cpu":
        import torch

        return torch.zeros(tuple(shape), dtype=getattr(torch, dtype), device=device)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)
