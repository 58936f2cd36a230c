"""Loads of the skeleton's kernel: one specialization, some values, a variant with parameters, other settings."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import dimorph as dm
from dimorph import settings

sys.path.insert(0, str(Path(__file__).parents[1] / "skeleton"))
from skeleton import SCALE_BIAS, affine

x = np.ones((4, 64), np.float32)
y, z = np.empty_like(x), np.empty_like(x)
bias = np.arange(64, dtype=np.float32)


def values() -> None:
    one = affine.load(dtype="float32", head_dim=64)  # one specialization
    some = affine.load(dtype="float32", head_dim=[64, 128])  # dispatches over two widths
    one.affine(x, y, 2.0)
    some.affine(x, z, 2.0)
    print(one, some, np.array_equal(y, z), sep="\n")


def variant() -> None:
    fast = affine.load(dtype="float32", head_dim=64, variant=SCALE_BIAS)
    fast.affine(x, y, scale=2.0, maybe_bias=bias)
    print(y[0, :3])


def other_settings() -> None:
    debug = replace(settings.current(), debug=True)
    module = affine.load(settings=debug, dtype="float32", head_dim=64)
    print(module.resolutions[0].place)


def background() -> None:
    module = affine.load(dtype="float32")  # dispatches, and was built ahead
    made = affine.load_in_background(dtype="float32", head_dim=80)
    while not made.done():
        module.affine(x, y, 2.0)
    module = made.result()  # raises what `load` would have raised
    print(module)


def missing() -> None:
    try:
        affine.load(policy="aot", dtype="float32", head_dim=72)
    except dm.MissingSpecialization as error:
        print(error.kernel, error.missing)
        print(error.command)


if __name__ == "__main__":
    values()
    variant()
    other_settings()
    background()
    missing()
