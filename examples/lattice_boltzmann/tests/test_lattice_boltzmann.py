"""The flow agrees with exact solutions, with a reference in NumPy and with published flows, in both forms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dimorph as dm
import numpy as np
import pytest
from numpy.typing import NDArray

from lattice_boltzmann import BGK, GPU_KERNEL, KERNEL, MRT, TRT, Flow, directions, equilibrium, weights, zeros
from lattice_boltzmann.cavity import GHIA, cavity, profiles

Array = NDArray[Any]
MODELS = [BGK(0.05), TRT(0.05, 3 / 16), MRT(0.05, 0.1, 1.2)]
each_model = pytest.mark.parametrize("collision", MODELS, ids=lambda bound: bound.variant.name)

# Nobody declared this model: it is compiled when it is asked for.
SMAGORINSKY = dm.Variant(
    "Smagorinsky",
    header="smagorinsky.h",
    params=[dm.scalar("viscosity"), dm.scalar("constant")],
)


def vortices(cells: int, speed: float) -> tuple[Array, Array]:
    """Density and velocity of Taylor-Green vortices: [cells, cells] and [cells, cells, 2]."""
    y, x = np.meshgrid(*2 * [2 * np.pi / cells * np.arange(cells)], indexing="ij")
    velocity = speed * np.stack([-np.cos(x) * np.sin(y), np.sin(x) * np.cos(y)], axis=-1)
    return 1 - 0.75 * speed**2 * (np.cos(2 * x) + np.cos(2 * y)), velocity


def decay_error(cells: int, collision: dm.BoundVariant, speed: float) -> float:
    """Largest error, relative to the speed, when exact vortices have decayed by 1 / e."""
    flow = Flow((cells, cells), collision, dtype="float64")
    density, velocity = vortices(cells, speed)
    flow.start(density, velocity)
    rate = 2 * float(collision.args[0]) * (2 * np.pi / cells) ** 2
    steps = round(1 / rate)
    flow.advance(steps)
    return float(np.abs(flow.velocity() - velocity * np.exp(-rate * steps)).max() / speed)


@each_model
def test_vortices_decay_by_the_viscosity_with_second_order(collision: dm.BoundVariant) -> None:
    # Half the cells, at half the speed: both errors, of the grid and of compressibility, fall to a quarter.
    coarse, fine = decay_error(32, collision, 0.02), decay_error(64, collision, 0.01)
    assert fine < 1e-3
    assert coarse / fine == pytest.approx(4, rel=0.15)


def test_the_cavity_below_a_moving_lid_is_that_of_ghia_and_others() -> None:
    flow = cavity(64, 100)
    flow.advance(10_000)
    assert profiles(flow).difference(GHIA[100]) < 0.01
    later = cavity(64, 100)
    later.advance(12_000)
    assert profiles(later).difference(profiles(flow)) < 1e-3  # it is steady


@pytest.mark.parametrize("axes", [(0, 1), (0, 2), (1, 2)], ids=["xy", "xz", "yz"])
@pytest.mark.parametrize("lattice", [19, 27])
def test_vortices_decay_in_every_plane_of_three_dimensions(lattice: int, axes: tuple[int, int]) -> None:
    flow = Flow((32, 32, 32), BGK(0.05), dtype="float64", lattice=lattice)
    density, velocity = vortices(32, 0.02)
    u = np.zeros((32, 32, 32, 3))
    along = tuple(2 - axis for axis in axes)  # array axes, z first
    (other,) = {0, 1, 2} - set(along)
    plane = np.moveaxis(u, along, (1, 0))  # [second, first, other, component]
    plane[..., axes[0]], plane[..., axes[1]] = velocity[..., None, 0], velocity[..., None, 1]
    rho = np.moveaxis(np.broadcast_to(density, (32, 32, 32)), (1, 2, 0), (along[1], along[0], other))
    flow.start(rho, u)
    rate = 2 * 0.05 * (2 * np.pi / 32) ** 2
    flow.advance(100)
    assert np.abs(flow.velocity() - u * np.exp(-rate * 100)).max() < 5e-3 * 0.02


def reference(flow: Flow, viscosity: float, kinds: Array, boundary: Array, steps: int) -> Array:
    """The populations after some steps of BGK, in float64, by the book: [*shape, directions]."""
    f = np.moveaxis(flow.populations.astype(np.float64), -2, -1).reshape(*flow.shape, flow.lattice)
    c, w, n = directions(flow.lattice), weights(flow.lattice), len(flow.shape)
    opposite = [int(np.flatnonzero((c == -one).all(1))[0]) for one in c]
    kinds = kinds[..., None]
    for _ in range(steps):
        f = np.stack([np.roll(f[..., i], c[i, :n][::-1], range(n)) for i in range(len(c))], axis=-1)
        density = 1 + f.sum(-1)
        velocity = f @ c[:, :n] / density[..., None]
        collided = f + (equilibrium(density, velocity, len(c)) - f) / (3 * viscosity + 0.5)
        moving = f[..., opposite] + 6 * w * (c[:, :n] @ boundary[:n])
        opened = np.broadcast_to(equilibrium(1.0, boundary[:n], len(c)), f.shape)
        f = np.select([kinds == 0, kinds == 1, kinds == 2], [collided, f[..., opposite], moving], opened)
    return np.asarray(f)


CASES = [("float32", (12, 48)), ("float64", (7, 32)), ("float32", (5, 6, 32)), ("float64", (3, 37, 16))]


@pytest.mark.parametrize(("dtype", "shape"), CASES, ids=str)
def test_all_kinds_of_cells_follow_the_reference_in_both_forms(dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    kinds = np.where(rng.random(shape) < 0.7, 0, rng.integers(0, 4, shape))
    boundary = np.array([0.03, -0.02, 0.01])[: len(shape)]
    flow = Flow(shape, BGK(0.03), kinds=kinds, boundary=list(boundary), dtype=dtype)
    flow.start(1 + 0.01 * rng.random(shape), 0.02 * rng.standard_normal((*shape, len(shape))))
    start, steps = flow.populations.copy(), 7
    expected = reference(flow, 0.03, kinds, boundary, steps)
    flow.advance(steps)
    found = np.moveaxis(flow.populations, -2, -1).reshape(expected.shape)
    solid = (kinds == 1) | (kinds == 2)
    found[solid, 0] = expected[solid, 0]  # what rests in a wall means nothing
    np.testing.assert_allclose(found, expected, atol={"float32": 2e-6, "float64": 2e-15}[dtype])

    # One value for every axis gives the same bits. In other tiles, other cells are at an end of a row or a step, where
    # the compiler may choose other multiply-adds.
    tiles: list[dict[str, Any]] = [{}, {"depth": 1}, {"depth": 4, "rows": 2, "planes": 3}]
    for tile in tiles:
        module = KERNEL.load(dtype=dtype, directions=flow.lattice, collision=BGK, **tile)
        first, second = zeros(start.shape, dtype), zeros(start.shape, dtype)
        first[...] = start
        velocity = (boundary[0], 0.0, boundary[1]) if len(shape) == 2 else boundary
        cells = kinds.reshape(start.shape[0], start.shape[1], -1).astype(np.uint8)
        swapped = module.advance(first, second, cells, *velocity, steps, "BGK", 0.03)
        atol = float(np.finfo(dtype).eps) if tile else 0.0
        np.testing.assert_allclose(second if swapped else first, flow.populations, rtol=0, atol=atol)


@each_model
@pytest.mark.parametrize("shape", [(16, 16), (6, 8, 16)], ids=["D2Q9", "D3Q19"])
def test_mass_and_momentum_are_conserved(shape: tuple[int, ...], collision: dm.BoundVariant) -> None:
    rng = np.random.default_rng(1)
    flow = Flow(shape, collision, dtype="float64")
    flow.start(1 + 0.01 * rng.random(shape), 0.05 * rng.standard_normal((*shape, len(shape))))
    before = flow.populations.sum((0, 1, 3))
    moments = np.column_stack([np.ones(flow.lattice), directions(flow.lattice)])
    flow.advance(50)
    np.testing.assert_allclose(flow.populations.sum((0, 1, 3)) @ moments, before @ moments, atol=1e-12)


def test_two_and_many_rates_are_one_where_the_rates_are_equal() -> None:
    viscosity, rate = 0.04, 1 / (3 * 0.04 + 0.5)
    flows = [
        Flow((8, 8, 16), model, dtype="float64")
        for model in (BGK(viscosity), TRT(viscosity, (3 * viscosity) ** 2), MRT(viscosity, viscosity, rate))
    ]
    for flow in flows:
        rng = np.random.default_rng(2)
        flow.start(1 + 0.01 * rng.random(flow.shape), 0.05 * rng.standard_normal((*flow.shape, 3)))
        flow.advance(20)
        np.testing.assert_allclose(flow.populations, flows[0].populations, atol=1e-14)


@pytest.mark.parametrize("collision", [BGK, TRT, MRT], ids=lambda variant: variant.name)
def test_device_code_compiles_without_spilling(tmp_path: Path, collision: dm.Variant) -> None:
    report = GPU_KERNEL.build(tmp_path, dtype="float32", directions=19, collision=collision)
    found = {one.meta.target: one.meta.device.kernels for one in report.artifacts if one.meta.device}
    assert found.keys() == {"sm_80", "sm_90"}
    for kernels in found.values():
        used = kernels["advance_cells"]
        assert (used["spill_stores"], used["stack"]) == (0, 0) and used["registers"] <= 80


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 'shape': expected .y, x. or .z, y, x."):
        Flow((16,), BGK(0.1))
    with pytest.raises(ValueError, match="argument 'kinds': expected shape .8, 16., got .16, 8."):
        Flow((8, 16), BGK(0.1), kinds=np.zeros((16, 8)))
    for shape, lattice in (((8, 16), 19), ((8, 16), 0), ((4, 4, 16), 15), ((4, 4, 16), 9)):
        with pytest.raises(ValueError, match=f"argument 'lattice': expected (9|19 or 27) directions .*got {lattice}"):
            Flow(shape, BGK(0.1), lattice=lattice)
    for shape in ((8, 20), (0, 32), (8, 0), (8, -16), (4, 0, 16)):
        with pytest.raises(
            ValueError, match=f"argument 'shape': .*multiple of 16 along x, got {re.escape(str(shape))}"
        ):
            Flow(shape, BGK(0.1))
    for kind in (4, 7, -1, 257.0, np.nan, 0.9):
        kinds = np.zeros((8, 16), type(kind))
        kinds[3, 5] = kind
        with pytest.raises(ValueError, match=f"argument 'kinds': expected whole numbers from 0 to 3, got {kind}"):
            Flow((8, 16), BGK(0.1), kinds=kinds)
    for velocity in (np.nan, np.inf):
        with pytest.raises(ValueError, match=f"argument 'boundary': expected 2 finite components, got .*{velocity}"):
            Flow((8, 16), BGK(0.1), boundary=(0.0, velocity))
    with pytest.raises(ValueError, match="argument 'steps': expected 0 or more, got -1"):
        Flow((8, 16), BGK(0.1)).advance(-1)
    module, f, cells = KERNEL.load(), zeros((1, 1, 9, 16), "float32"), zeros((1, 1, 16), "uint8")
    with pytest.raises(ValueError, match="argument 'second': expected other memory"):
        module.advance(f, f, cells, 0.0, 0.0, 0.0, 1, "BGK", 0.1)
    with pytest.raises(ValueError, match="argument 'first': expected a multiple of 16 cells along x, got 8"):
        odd = [zeros((1, 1, 9, 8), "float32") for _ in range(2)]
        module.advance(*odd, cells[..., :8].copy(), 0.0, 0.0, 0.0, 1, "BGK", 0.1)
    rows = zeros((4, 1, 9, 16), "float32")
    for first, second in ((rows[:3], rows[1:]), (rows[1:], rows[:3])):
        with pytest.raises(ValueError, match="argument 'second': expected other memory than 'first', got the same in"):
            module.advance(first, second, zeros((3, 1, 16), "uint8"), 0.0, 0.0, 0.0, 1, "BGK", 0.1)
    assert not module.advance(rows[:2], rows[2:], zeros((2, 1, 16), "uint8"), 0.0, 0.0, 0.0, 0, "BGK", 0.1)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        *((BGK(value), "viscosity") for value in (0.0, -0.1, np.nan, np.inf)),
        *((TRT(0.1, value), "magic") for value in (0.0, np.nan)),
        (MRT(np.nan, 0.1, 1.2), "viscosity"),
        (MRT(0.1, -1.0, 1.2), "bulk"),
        *((MRT(0.1, 0.1, value), "ghost") for value in (0.0, 2.0, np.nan)),
    ],
    ids=str,
)
def test_parameters_without_a_stable_flow_are_refused(model: dm.BoundVariant, name: str) -> None:
    with pytest.raises(ValueError, match=f"argument 'collision': {model.variant.name}: {name}: expected .* got "):
        Flow((8, 16), model)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_a_flow_that_was_interrupted_is_refused_until_it_starts_anew(error: type[BaseException]) -> None:
    class Interrupted:
        def advance(self, first: Array, second: Array, *_: object) -> bool:
            second[:1] = np.nan
            raise error

    flow, other = (Flow((8, 16), BGK(0.1), dtype="float64") for _ in range(2))
    flow.advance(3)
    whole, flow._module = flow._module, Interrupted()  # type: ignore[assignment]
    with pytest.raises(error):
        flow.advance(5)
    flow._module = whole
    for name, call in (("advance", lambda: flow.advance(1)), ("density", flow.density), ("velocity", flow.velocity)):
        with pytest.raises(RuntimeError, match=rf"Flow\.{name}: an earlier call was interrupted.*`start`"):
            call()
    with pytest.raises(ValueError, match="broadcast"):
        flow.start(np.ones(5))
    for one in (flow, other):
        one.start(velocity=(0.02, 0.01))
        one.advance(4)
    assert (flow.velocity() == other.velocity()).all()
    with pytest.raises(ValueError, match="argument 'steps'"):
        flow.advance(-1)
    flow.advance(1)  # a refused argument has written nothing


@pytest.mark.parametrize("shape", [(16, 64), (4, 4, 64)], ids=["D2Q9", "D3Q19"])
def test_sound_is_damped_by_the_bulk_viscosity(shape: tuple[int, ...]) -> None:
    wave, steps = np.cos(2 * np.pi / 64 * np.arange(64)), 776  # 7 periods of 64 cells at a speed of 1 / sqrt(3)
    left = []
    for bulk in (0.1, 0.3):
        flow = Flow(shape, MRT(0.05, bulk, 1.2), dtype="float64")
        flow.start(np.broadcast_to(1 + 1e-4 * wave, shape))
        flow.advance(steps)
        left.append(float((flow.density() * wave).sum()))
    # Of the longitudinal viscosity, the share of compression is one axis of all.
    expected = np.exp(-((2 * np.pi / 64) ** 2) * (0.3 - 0.1) / len(shape) * steps)
    assert left[1] / left[0] == pytest.approx(expected, rel=0.05)


def test_a_model_that_nobody_declared_damps_eddies() -> None:
    energies = []
    for model in (BGK(1e-3), SMAGORINSKY(1e-3, 0.0), SMAGORINSKY(1e-3, 0.5)):
        flow = Flow((32, 32), model, dtype="float64")
        flow.start(*vortices(32, 0.05))
        flow.advance(200)
        energies.append(float((flow.velocity() ** 2).sum()))
    assert energies[1] == pytest.approx(energies[0], rel=1e-9)
    assert energies[2] < 0.95 * energies[0]
