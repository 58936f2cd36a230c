"""Scenes: what a user describes, and the two ways in which the kernel has them, compiled in and read from tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, radians, sin, tan
from typing import Any

import dimorph as dm
import numpy as np
from numpy.typing import NDArray

from path_tracer.kernels import CORNELL_BOX, DIFFUSE, GLASS, LISTED, METAL

Triple = tuple[float, float, float]
KINDS = ("room", "floor", "box", "sphere")


@dataclass(frozen=True)
class Camera:
    """A pinhole at `origin` that looks at `target`; `fov` is the angle of the shorter side of the image, in degrees."""

    origin: Triple
    target: Triple
    fov: float = 40.0
    up: Triple = (0.0, 1.0, 0.0)

    def array(self, width: int, height: int) -> NDArray[np.float32]:
        """Return float32 [4, 3]: the origin, the direction of the first pixel's corner, and the steps across and down.

        Raises:
            ValueError: the camera looks nowhere, or along `up`.
        """
        forward = _unit(np.subtract(self.target, self.origin), "target", "a point other than the origin")
        right = _unit(np.cross(forward, self.up), "up", "a direction other than that of the view")
        step = 2 * tan(radians(self.fov) / 2) / min(width, height)
        across, down = step * right, step * np.cross(forward, right)
        corner = forward - across * width / 2 - down * height / 2
        return np.array([self.origin, corner, across, down], np.float32)


@dataclass(frozen=True)
class Material:
    """A surface that reflects `albedo` of the light; `kind` is DIFFUSE, METAL (rough by 0 to 1) or GLASS (index 1.5)."""

    albedo: Triple
    kind: int = DIFFUSE
    roughness: float = 0.0

    def row(self) -> list[float]:
        if self.kind not in {DIFFUSE, METAL, GLASS}:
            raise ValueError(f"Material: argument kind: expected DIFFUSE, METAL or GLASS, got {self.kind!r}")
        return [*self.albedo, self.roughness, float(self.kind == METAL), float(self.kind == GLASS)]


@dataclass(frozen=True)
class Shape:
    """A shape of a list. `size` holds half the sides of a box, or three times the radius of a sphere.

    `kind` is "box" (turned by an angle in degrees about the y axis), "sphere", "floor" (a plane at the height of
    `centre`) or "room" (the cube from -1 to 1, open at z = 1). `material` is an index; a room takes three materials, from
    this one on: of the side at x = -1, of that at x = 1, and of the others.
    """

    kind: str
    material: int
    centre: Triple = (0.0, 0.0, 0.0)
    size: Triple = (1.0, 1.0, 1.0)
    turn: float = 0.0

    def row(self) -> list[float]:
        if self.kind not in KINDS:
            raise ValueError(f"Shape: argument kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        turn = radians(self.turn)
        return [KINDS.index(self.kind), self.material, *self.centre, *self.size, cos(turn), sin(turn)]


@dataclass(frozen=True)
class Lamp:
    """A level rectangle that shines downward, and the light of the sky at the horizon and above."""

    centre: Triple
    half: tuple[float, float]
    radiance: Triple
    albedo: Triple = (0.0, 0.0, 0.0)
    horizon: Triple = (0.0, 0.0, 0.0)
    zenith: Triple = (0.0, 0.0, 0.0)

    def array(self) -> NDArray[np.float32]:
        parts = (self.centre, self.half, self.radiance, self.albedo, self.horizon, self.zenith)
        return np.concatenate([np.asarray(part, np.float32) for part in parts])


@dataclass(frozen=True)
class Scene:
    """A scene for a `Renderer`: a struct, tables, or both for the same scene.

    compiled: the scene as a variant, whose struct is compiled in.
    features: DIFFUSE, METAL, GLASS or METAL | GLASS: the kinds of surfaces that it has. Others are diffuse.
    listed: the scene as tables for the kernel that reads any scene.
    """

    camera: Camera
    compiled: dm.BoundVariant | None = None
    features: int = DIFFUSE
    listed: dm.BoundVariant | None = None


def listed(
    shapes: Sequence[Shape],
    materials: Sequence[Material],
    lamp: Lamp,
    blend: float = 0.0,
    asarray: Callable[[NDArray[np.float32]], Any] = np.asarray,
) -> dm.BoundVariant:
    """Return a scene as tables.

    Args:
        shapes: nearer than `blend`, boxes and spheres flow into each other (I. Quilez, "Smooth minimum").
        materials: those that the shapes name by their index.
        lamp: the light.
        blend: a length; 0 for sharp edges.
        asarray: makes the tables, so that they lie where the film does, such as CuPy's `asarray`.

    Raises:
        ValueError: a shape or a material is of no known kind, or a shape names a material that is not there.
    """
    for shape in shapes:
        if not 0 <= shape.material + 2 * (shape.kind == "room") < len(materials):
            raise ValueError(f"listed: argument shapes: {shape} names a material beyond the {len(materials)} given")
    rows = [np.array([one.row() for one in some], np.float32) for some in (shapes, materials)]
    tables = [asarray(rows[0]), asarray(rows[1]), asarray(lamp.array())]
    return LISTED(shapes=tables[0], materials=tables[1], lamp=tables[2], count=len(shapes), blend=blend)


def cornell_box(asarray: Callable[[NDArray[np.float32]], Any] = np.asarray) -> Scene:
    """Return the Cornell box with the measures, colours and camera of Mitsuba's `cornell_box()`."""
    white = (0.885809, 0.698859, 0.666422)
    red, green = (0.570068, 0.0430135, 0.0443706), (0.105421, 0.37798, 0.076425)
    shapes = [
        Shape("room", 0),
        Shape("box", 2, (0.335, -0.7, 0.38), (0.3, 0.3, 0.3), -17.0),
        Shape("box", 2, (-0.33, -0.4, -0.28), (0.3, 0.61, 0.3), 18.25),
    ]
    lamp = Lamp((0, 0.99, 0.01), (0.23, 0.19), (18.387, 13.9873, 6.75357), white)
    tables = listed(shapes, [Material(red), Material(green), Material(white)], lamp, asarray=asarray)
    return Scene(Camera((0, 0, 3.9), (0, 0, 0), 39.3077), CORNELL_BOX(), DIFFUSE, tables)


def _unit(v: NDArray[Any], argument: str, expected: str) -> NDArray[np.float64]:
    length = np.linalg.norm(v)
    if not length > 1e-9:
        raise ValueError(f"Camera: argument {argument}: expected {expected}")
    return np.asarray(v / length, np.float64)
