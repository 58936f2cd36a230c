"""The skeleton's kernel, built ahead of time, verified, and served without a compiler."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import dimorph as dm
from dimorph import aot, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "skeleton"))
from skeleton import affine

x = np.ones((4, 64), np.float32)
y = np.empty_like(x)
stop = dm.on_build(lambda build: print(f"compiled {build.done} of {len(build.units)} after {build.seconds:.1f} s"))

with tempfile.TemporaryDirectory() as ahead:
    report = affine.build(ahead, dtype="float32", head_dim=[64, 128])
    print(report)
    coverage = aot.verify([affine], ahead)
    print(coverage.ok, coverage.problems)

    served = replace(settings.current(), shared_stores=(Path(ahead),), policy="aot")
    affine.load(settings=served, dtype="float32", head_dim=64).affine(x, y, 2.0)
    print(y[0, 0])

    use = Path(ahead, "use.json")
    with dm.record(use):
        affine.load(dtype="float32", head_dim=64).affine(x, y, 2.0)
    print(aot.cover(use, [ahead]))
