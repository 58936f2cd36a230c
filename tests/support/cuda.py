"""The kernel of the example that has device code."""

from __future__ import annotations

import importlib.util

import dimorph as dm
from support.paths import EXAMPLES

EXAMPLE = EXAMPLES / "cuda" / "rms.py"


def _declared() -> dm.Kernel:
    spec = importlib.util.spec_from_file_location("cuda_example", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel: dm.Kernel = module.rms
    return kernel


RMS = _declared()
