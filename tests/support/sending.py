"""Work for processes that a test spawns, in a module that they can import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import dimorph as dm
from dimorph import attention as at
from support.kernels import PICK

KERNEL = dm.Kernel(name="pick", entry="pick.cc", case=("pick_case.cc",), axes=PICK.axes, root=PICK.root)


def by_kernel(kernel: dm.Kernel) -> int:
    return int(kernel.load(width=1, depth=2).pick(1, 2))


def by_module(module: dm.Module) -> int:
    return int(module.pick(1, 2))


def by_attention(given: tuple[Callable[..., Any], dm.BoundVariant]) -> Any:
    attend, variant = given
    q = np.linspace(-1, 1, 320, dtype=np.float32).reshape(1, 5, 2, 32)
    return attend(q, q, q, variant=variant)


def failing(_: object) -> None:
    raise dm.MissingSpecialization("lacks it", kernel="pick", missing={"width": "1"}, command="dimorph build")


def composed() -> dm.BoundVariant:
    return at.compose(at.Causal, at.ALiBi(np.ones(2, np.float32)))
