"""The operators agree with assembled matrices in both forms, converge as they should, and refuse what is wrong."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import dimorph as dm
import numpy as np
import pytest
from numpy.typing import NDArray

from matrix_free import DIFFUSION, GPU_KERNEL, HELMHOLTZ, KERNEL, MASS, Operator, conjugate_gradients, grid
from matrix_free.mesh import Floats
from reference import error, matrix

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def bend(points: Floats) -> Floats:
    """Move the points inside of the unit cube, so that no two elements have the same shape."""
    bump = np.prod(np.sin(np.pi * points), axis=1, keepdims=True)
    return np.asarray(points + bump * np.array([0.08, -0.06, 0.04]))


def random(operator: Operator) -> NDArray[Any]:
    return np.random.default_rng(0).standard_normal(operator.unknowns).astype(operator.dtype)


def assert_agrees(operator: Operator, expected: Floats) -> None:
    x = random(operator)
    product = expected @ x.astype(np.float64)
    np.testing.assert_allclose(
        operator(x), product, rtol=0, atol=TOLERANCE[operator.dtype.name] * np.abs(product).max()
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("degree", [1, 2, 3, 6])
def test_both_forms_agree_with_assembled_matrices(dtype: str, degree: int) -> None:
    mesh = grid((3, 2, 2), bend) if degree < 6 else grid((2, 1, 1), bend)
    for physics, name in ((MASS, "mass"), (DIFFUSION, "diffusion")):
        one = Operator(mesh, degree, physics, dtype)
        any_ = Operator(mesh, degree, physics, dtype, module=KERNEL.load(degree=[1, 2, 3, 6]))
        expected = matrix(one, name)
        assert_agrees(one, expected)
        assert (any_(random(one)) == one(random(one))).all()


def test_jit_serves_a_degree_and_a_physics_that_nobody_declared() -> None:
    operator = Operator(grid((2, 1, 1), bend), 9, HELMHOLTZ(shift=2.0, contrast=0.5))
    assert_agrees(operator, matrix(operator, "helmholtz", shift=2.0, contrast=0.5))


def test_threads_chunks_and_incomplete_batches_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = grid((7, 5, 9), bend)  # 315 elements: 39 batches and a part
    results = []
    for threads in ("1", "2", "8"):
        monkeypatch.setenv("DIMORPH_NUM_THREADS", threads)
        operator = Operator(mesh, 2, DIFFUSION)
        x = operator.nodes() @ np.array([1.0, 2.0, 3.0])
        results.append((x @ operator(x), np.abs(operator(x)[: operator.inner]).max()))
    for energy, residual in results:
        assert energy == pytest.approx(14.0, rel=1e-13)
        assert residual < 1e-13


@pytest.mark.parametrize(("degree", "coarse"), [(1, 8), (2, 4), (3, 3)])
def test_the_error_of_a_solution_falls_with_the_power_degree_plus_one(degree: int, coarse: int) -> None:
    errors = [solution_error(degree, n) for n in (coarse, 2 * coarse)]
    order = np.log2(errors[0] / errors[1])
    assert order == pytest.approx(degree + 1, abs=0.3), errors


def sines(points: Floats) -> Floats:
    return np.asarray(np.prod(np.sin(np.pi * points), axis=1))


def solution_error(degree: int, elements: int) -> float:
    """Solve -div grad u = f on the unit cube, where u is the product of sin(pi x); return the error in L2."""
    mesh = grid((elements,) * 3, bend)
    mass, diffusion = Operator(mesh, degree, MASS), Operator(mesh, degree, DIFFUSION)
    right = mass(3 * np.pi**2 * sines(diffusion.nodes()))
    found, _ = conjugate_gradients(diffusion, right, 1e-11, boundary=False)
    return error(diffusion, found, sines)


def test_the_mass_problem_is_solved_with_its_boundary() -> None:
    operator = Operator(grid((3, 3, 3), bend), 4)
    x = random(operator)
    found, iterations = conjugate_gradients(operator, operator(x), 1e-12)
    np.testing.assert_allclose(found, x, atol=1e-8)
    assert 0 < iterations < 500


def test_a_ring_has_no_ends() -> None:
    def ring(points: Floats) -> Floats:
        angle, radius = 2 * np.pi * points[:, 0], 1 + points[:, 1]
        return np.stack([radius * np.cos(-angle), radius * np.sin(-angle), points[:, 2]], axis=1)

    operator = Operator(grid((24, 2, 2), ring, periodic=(True, False, False)), 2)
    polygon = 12 * np.sin(2 * np.pi / 24) * (4 - 1)
    assert operator(np.ones(operator.unknowns)).sum() == pytest.approx(polygon, rel=1e-12)
    assert operator.unknowns == 48 * 5 * 5


@pytest.mark.parametrize("physics", [DIFFUSION, HELMHOLTZ], ids=lambda variant: variant.name)
@pytest.mark.parametrize(("arch", "most", "limit"), [("sm_80", 17, 163), ("sm_86", 13, 99), ("sm_90", 19, 227)])
def test_degrees_beyond_the_shared_memory_of_a_gpu_do_not_compile(
    tmp_path: Path, arch: str, most: int, limit: int, physics: dm.Variant
) -> None:
    with pytest.raises(dm.BuildError, match=rf"DEGREE needs more shared memory.* {limit}[\s\S]*degree={most + 1}"):
        GPU_KERNEL.build(tmp_path, degree=most + 1, physics=physics, dtype="float64", archs=[arch])
    if physics is DIFFUSION:
        report = GPU_KERNEL.build(tmp_path, degree=most, physics=physics, dtype="float64", archs=[arch])
        assert arch in {artifact.meta.target for artifact in report.artifacts}


def test_wrong_arguments_are_refused() -> None:
    operator = Operator(grid((2, 2, 2)), 1)
    x = np.ones(operator.unknowns)
    with pytest.raises(ValueError, match="argument 'y'"):
        operator(x, np.ones(5))
    with pytest.raises(TypeError, match="argument 'y'"):
        operator(x, np.ones(operator.unknowns, np.float32))
    both = np.ones(2 * operator.unknowns)
    for begin in (0, 1, operator.unknowns - 1):  # y may begin before x, and after it
        pair = both[: operator.unknowns], both[begin : begin + operator.unknowns]
        for first, second in (pair, pair[::-1]):
            with pytest.raises(ValueError, match="argument 'y': expected no memory of x"):
                operator(first, second)
    assert operator(both[: operator.unknowns], both[operator.unknowns :]).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="argument 'x': expected shape .27"):
        operator(np.ones(5))
    for degree in (0, 21):
        with pytest.raises(ValueError, match=f"argument 'degree': expected 1 to 20, got {degree}"):
            Operator(operator.mesh, degree)
    with pytest.raises(ValueError, match="argument bend: .*positive determinant"):
        grid((2, 2, 2), lambda points: -points)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="argument bend: .*got points that are not finite"):
            grid((2, 2, 2), partial(np.add, [0.0, value, 0.0]))
    with pytest.raises(ValueError, match="argument shape: .*positive"):
        grid((2, 0, 2))
    with pytest.raises(RuntimeError, match="after 2 iterations"):
        conjugate_gradients(operator, x, most=2)
