"""The Cornell box of examples/path_tracer in Numba: the same paths, steps, random numbers and types."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int32, njit, prange, uint32

F, U = np.float32, np.uint32
FAR, CLOSE, SURE, INVERSE_PI = F(1e9), F(2e-4), F(1e9), F(1 / np.pi)
ZERO, ONE, TWO, HALF = F(0), F(1), F(2), F(0.5)
LIGHT = (F(0), F(0.99), F(0.01), F(0.23), F(0.19))
AREA = F(4 * 0.23 * 0.19)
SMALL = (F(0.335), F(-0.7), F(0.38), F(0.3), F(0.3), F(0.3), F(0.956305), F(-0.292372))
LARGE = (F(-0.33), F(-0.4), F(-0.28), F(0.3), F(0.61), F(0.3), F(0.949699), F(0.313164))
inline = njit(fastmath=True, error_model="numpy", inline="always")


@inline
def scatter(x: Any) -> Any:
    x = uint32(uint32(x ^ (x >> U(16))) * U(0x7FEB352D))
    x = uint32(uint32(x ^ (x >> U(15))) * U(0x846CA68B))
    return uint32(x ^ (x >> U(16)))


@inline
def chances(key: Any, dimension: Any) -> Any:
    both = scatter(uint32(key + uint32(dimension * U(0x9E3779B9))))
    low, high = float32(int32(both & U(0xFFFF))), float32(int32(both >> U(16)))
    return low * F(2.0**-16) + F(2.0**-17), high * F(2.0**-16) + F(2.0**-17)


@inline
def on_sphere(u: Any, v: Any) -> Any:
    t = v - HALF
    tt = t * t
    radius = TWO * np.sqrt(u * (ONE - u))
    sine = t * (F(3.1415926) + tt * (F(-5.1677069) + tt * (F(2.550031) + tt * (F(-0.5980452) + tt * F(0.0772201)))))
    cosine = ONE + tt * (F(-4.9347929) + tt * (F(4.0584119) + tt * (F(-1.3318801) + tt * F(0.2196968))))
    return radius * TWO * sine * cosine, radius * (ONE - TWO * sine * sine), ONE - TWO * u


@inline
def turned(box: Any, x: Any, z: Any) -> Any:
    return x * box[6] - z * box[7], x * box[7] + z * box[6]


@inline
def beyond(box: Any, x: Any, y: Any, z: Any) -> Any:
    """Return a point in the frame of a box, and how far outside of each side it is."""
    px, py, pz = x - box[0], y - box[1], z - box[2]
    qx, qz = turned(box, px, pz)
    return qx, py, qz, abs(qx) - box[3], abs(py) - box[4], abs(qz) - box[5]


@inline
def outside(box: Any, x: Any, y: Any, z: Any) -> Any:
    _, _, _, dx, dy, dz = beyond(box, x, y, z)
    return max(dx, dy, dz)


@inline
def box_step(box: Any, ox: Any, oy: Any, oz: Any, wx: Any, wy: Any, wz: Any, t: Any) -> Any:
    vx, vz = turned(box, wx, wz)
    qx, qz = turned(box, ox - box[0], oz - box[2])
    qx, qy, qz = qx + vx * t, oy - box[1] + wy * t, qz + vz * t
    dx = qx - max(min(qx, box[3]), -box[3])
    dy = qy - max(min(qy, box[4]), -box[4])
    dz = qz - max(min(qz, box[5]), -box[5])
    square, slope = dx * dx + dy * dy + dz * dz, dx * vx + dy * wy + dz * vz
    if slope < ZERO:
        return square / -slope
    return FAR if square > ZERO else ZERO


@inline
def largest(ax: Any, ay: Any, az: Any, qx: Any, qy: Any, qz: Any) -> Any:
    if ax > ay and ax > az:
        return (-ONE if qx < ZERO else ONE), ZERO, ZERO
    if ay > az:
        return ZERO, (-ONE if qy < ZERO else ONE), ZERO
    return ZERO, ZERO, (-ONE if qz < ZERO else ONE)


@inline
def box_normal(box: Any, x: Any, y: Any, z: Any) -> Any:
    qx, qy, qz, dx, dy, dz = beyond(box, x, y, z)
    nx, ny, nz = largest(dx, dy, dz, qx, qy, qz)
    return nx * box[6] + nz * box[7], ny, nz * box[6] - nx * box[7]


@inline
def march(ox: Any, oy: Any, oz: Any, wx: Any, wy: Any, wz: Any, limit: Any, walls: Any) -> Any:
    """Return how far a ray goes, whether it meets a surface there, and whether that is a wall."""
    t, far, closed = ZERO, FAR, False
    if walls:
        rx = ((-ONE if wx < ZERO else ONE) - ox) / wx
        ry = ((-ONE if wy < ZERO else ONE) - oy) / wy
        up = ONE / wz
        front, back = (ONE - oz) * up, (-ONE - oz) * up
        rz = max(front, back)
        t, far = max(min(front, back), ZERO), min(rx, ry, rz)
        closed = t < far and (wz < ZERO or far < rz)
    end = min(far, limit)
    for _ in range(256):
        if not t < end:
            break
        step = min(box_step(SMALL, ox, oy, oz, wx, wy, wz, t), box_step(LARGE, ox, oy, oz, wx, wy, wz, t))
        if not step > CLOSE:
            return t, True, False
        t += step
    return end, closed and far <= limit, True


@njit(fastmath=True, error_model="numpy")
def trace(  # noqa: PLR0912, PLR0915, one function as in trace.h
    camera: Any, width: Any, px: Any, py: Any, sample: Any, seed: Any, depths: Any
) -> Any:
    """Return the radiance of one path."""
    red = green = blue = ZERO
    key = scatter(uint32(py * uint32(width) + px) ^ scatter(uint32(sample ^ scatter(seed))))
    in_pixel = chances(key, U(0))
    u, v = float32(px) + in_pixel[0], float32(py) + in_pixel[1]
    wx = camera[1, 0] + camera[2, 0] * u + camera[3, 0] * v
    wy = camera[1, 1] + camera[2, 1] * u + camera[3, 1] * v
    wz = camera[1, 2] + camera[2, 2] * u + camera[3, 2] * v
    norm = ONE / np.sqrt(wx * wx + wy * wy + wz * wz)
    wx, wy, wz = wx * norm, wy * norm, wz * norm
    ox, oy, oz = camera[0, 0], camera[0, 1], camera[0, 2]
    wr = wg = wb = ONE
    density = SURE
    for depth in range(1, depths + 1):
        shining = FAR
        t = (LIGHT[1] - oy) / wy
        if t > ZERO and abs(ox + t * wx - LIGHT[0]) < LIGHT[3] and abs(oz + t * wz - LIGHT[2]) < LIGHT[4]:
            shining = t
        t, solid, flat = march(ox, oy, oz, wx, wy, wz, shining, True)
        on_light = flat and not solid and t >= shining and shining < FAR
        if not (solid or on_light) or (on_light and wy < ZERO):
            break
        x, y, z = ox + wx * t, oy + wy * t, oz + wz * t
        ar, ag, ab = F(0.885809), F(0.698859), F(0.666422)
        if on_light:
            aimed = t * t / (wy * AREA)
            share = density / (density + aimed)
            red += wr * F(18.387) * share
            green += wg * F(13.9873) * share
            blue += wb * F(6.75357) * share
            nx, ny, nz = ZERO, -ONE, ZERO
        elif flat:
            nx, ny, nz = largest(abs(x), abs(y), abs(z), -x, -y, -z)
            if abs(x) > F(0.9999):
                if x < ZERO:
                    ar, ag, ab = F(0.570068), F(0.0430135), F(0.0443706)
                else:
                    ar, ag, ab = F(0.105421), F(0.37798), F(0.076425)
        elif outside(SMALL, x, y, z) < outside(LARGE, x, y, z):
            nx, ny, nz = box_normal(SMALL, x, y, z)
        else:
            nx, ny, nz = box_normal(LARGE, x, y, z)
        if depth == depths:
            break
        key = uint32(key + uint32(U(0x9E3779B9) * U(4)))
        if wx * nx + wy * ny + wz * nz > ZERO:
            nx, ny, nz = -nx, -ny, -nz
        ox, oy, oz = x + nx * (F(3) * CLOSE), y + ny * (F(3) * CLOSE), z + nz * (F(3) * CLOSE)
        wr, wg, wb = wr * ar, wg * ag, wb * ab

        on_it = chances(key, U(1))
        lx = LIGHT[0] - LIGHT[3] + TWO * LIGHT[3] * on_it[0] - ox
        ly = LIGHT[1] - oy
        lz = LIGHT[2] - LIGHT[4] + TWO * LIGHT[4] * on_it[1] - oz
        far = np.sqrt(lx * lx + ly * ly + lz * lz)
        norm = ONE / far
        lx, ly, lz = lx * norm, ly * norm, lz * norm
        cosine = lx * nx + ly * ny + lz * nz
        if cosine > ZERO and ly > ZERO:
            _, hidden, flat = march(ox, oy, oz, lx, ly, lz, far * F(0.9999) - CLOSE, False)
            if flat and not hidden:
                diffuse = cosine * INVERSE_PI
                share = diffuse / (far * far / (ly * AREA) + diffuse)
                red += wr * F(18.387) * share
                green += wg * F(13.9873) * share
                blue += wb * F(6.75357) * share

        on_ball = chances(key, U(2))
        sx, sy, sz = on_sphere(on_ball[0], on_ball[1])
        wx, wy, wz = nx + sx, ny + sy, nz + sz
        length = np.sqrt(max(wx * wx + wy * wy + wz * wz, F(1e-12)))
        norm = ONE / length
        wx, wy, wz = wx * norm, wy * norm, wz * norm
        density = length * (HALF * INVERSE_PI)
        if depth > 2:
            survival = min(max(wr, wg, wb), ONE)
            if chances(key, U(3))[1] >= survival:
                break
            norm = ONE / survival
            wr, wg, wb = wr * norm, wg * norm, wb * norm
    return red, green, blue


@njit(
    "void(float32[:, :, ::1], float32[:, ::1], uint32, int32, uint32, int32)",
    parallel=True,
    fastmath=True,
    error_model="numpy",
    cache=True,
)
def render(film: Any, camera: Any, first: Any, samples: Any, seed: Any, depth: Any) -> None:
    """Add paths to a film, float32 [height, width, 3], as the kernel of examples/path_tracer does."""
    height, width, _ = film.shape
    for row in prange(height):
        for column in range(width):
            red = green = blue = ZERO
            for sample in range(samples):
                one = trace(
                    camera, width, uint32(column), uint32(row), uint32(first + uint32(sample)), seed, int32(depth)
                )
                red, green, blue = red + one[0], green + one[1], blue + one[2]
            film[row, column, 0] += red
            film[row, column, 1] += green
            film[row, column, 2] += blue
