"""The operators of examples/matrix_free by libCEED and MFEM, on the same mesh: both of one thread, as their wheels are.

Both store the geometric factors at each point. libCEED gets the numbers of our unknowns, so that results are compared
element by element; MFEM numbers them itself, so x is a function of the position, and energies x.A x are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import libceed
import mfem.ser as mfem
import numpy as np
from benchmarks.fields.matrix_free_mesh import bend
from matrix_free import Operator


@dataclass
class Peer:
    """A peer's operator: `apply` computes y = A x once, `result` returns y, or for MFEM the energy x.y."""

    apply: Callable[[], object]
    result: Callable[[], np.ndarray]


def with_libceed(operator: Operator, physics: str, x: np.ndarray, resource: str) -> Peer:
    ceed = libceed.Ceed(resource)
    mesh, degree = operator.mesh, operator.degree
    elements, nodes, points = mesh.elements, (degree + 1) ** 3, (degree + 2) ** 3
    values = 1 if physics == "Mass" else 6

    numbers = operator.numbers().astype(np.int32).ravel()
    unknowns = ceed.ElemRestriction(elements, nodes, 1, 1, operator.unknowns, numbers)
    corners = ceed.StridedElemRestriction(elements, 8, 3, 24 * elements, np.array([1, 8, 24], np.int32))
    strides = np.array([1, points, points * values], np.int32)
    factors = ceed.StridedElemRestriction(elements, points, values, elements * points * values, strides)
    of_unknowns = ceed.BasisTensorH1Lagrange(3, 1, degree + 1, degree + 2, libceed.GAUSS)
    of_corners = ceed.BasisTensorH1Lagrange(3, 3, 2, degree + 2, libceed.GAUSS)

    # Setting up: weights and Jacobians of the points -> geometric factors.
    build = ceed.QFunctionByName("Mass3DBuild" if physics == "Mass" else "Poisson3DBuild")
    data = ceed.Vector(elements * points * values)
    at = ceed.Vector(24 * elements)
    at.set_array(np.ascontiguousarray(mesh.corners.transpose(0, 2, 1)).ravel(), cmode=libceed.COPY_VALUES)
    setup = ceed.Operator(build)
    setup.set_field("dx", corners, of_corners, libceed.VECTOR_ACTIVE)
    setup.set_field("weights", libceed.ELEMRESTRICTION_NONE, of_corners, libceed.VECTOR_NONE)
    setup.set_field("qdata", factors, libceed.BASIS_NONE, libceed.VECTOR_ACTIVE)
    setup.apply(at, data)

    # The operator.
    point = ceed.QFunctionByName("MassApply" if physics == "Mass" else "Poisson3DApply")
    ours = ceed.Operator(point)
    names = ("u", "v") if physics == "Mass" else ("du", "dv")
    ours.set_field(names[0], unknowns, of_unknowns, libceed.VECTOR_ACTIVE)
    ours.set_field("qdata", factors, libceed.BASIS_NONE, data)
    ours.set_field(names[1], unknowns, of_unknowns, libceed.VECTOR_ACTIVE)
    given, result = ceed.Vector(operator.unknowns), ceed.Vector(operator.unknowns)
    given.set_array(x, cmode=libceed.COPY_VALUES)
    result.set_value(0)

    def read() -> np.ndarray:
        with result.array_read() as array:
            return np.array(array)

    return Peer(lambda: ours.apply(given, result), read)


class _Wave(mfem.PyCoefficient):
    def EvalValue(self, x: np.ndarray) -> float:  # MFEM calls it by this name
        return float(wave(x))


def wave(x: np.ndarray) -> np.ndarray:
    """Return a function of positions, [..., 3], that no two axes or ends share: [...]."""
    return np.asarray(np.sin(2 * x[..., 0] + 0.3) * np.cos(3 * x[..., 1]) + x[..., 2] ** 2 * x[..., 0])


def with_mfem(size: int, degree: int, physics: str) -> Peer:
    """Return MFEM's operator with partial assembly, on a mesh of size^3 elements as `grid` bends it."""
    mesh = mfem.Mesh.MakeCartesian3D(size, size, size, mfem.Element.HEXAHEDRON)
    mesh.SetCurvature(1)  # positions of vertices as a function, [vertices, 3]
    at = mesh.GetNodes().GetDataArray().reshape(-1, 3)
    at[:] = bend(at.copy())
    space = mfem.FiniteElementSpace(mesh, mfem.H1_FECollection(degree, 3))
    rule = mfem.IntRules.Get(mfem.Geometry.CUBE, 2 * (degree + 2) - 1)  # degree + 2 Gauss points in each direction
    integrator = mfem.MassIntegrator() if physics == "Mass" else mfem.DiffusionIntegrator()
    integrator.SetIntRule(rule)
    integrator.thisown = 0  # the form deletes it
    form = mfem.BilinearForm(space)
    form.SetAssemblyLevel(mfem.AssemblyLevel_PARTIAL)
    form.AddDomainIntegrator(integrator)
    form.Assemble()
    x, y = mfem.GridFunction(space), mfem.Vector(space.GetVSize())
    x.ProjectCoefficient(_Wave())  # its values at the Gauss-Lobatto nodes, as ours are
    kept = (mesh, space, rule, form)
    return Peer(lambda: (form.Mult(x, y), kept), lambda: np.array([x.GetDataArray() @ y.GetDataArray()]))
