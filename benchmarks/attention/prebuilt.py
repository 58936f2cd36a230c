"""The set of attention kernels that a package for GPUs would ship, built ahead. Needs neither a GPU nor torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.support.rows import Row

import dimorph as dm
from dimorph import aot, settings
from dimorph import attention as at
from dimorph.attention.kernels import attention_sm80

VARIANTS = [variant for variant in map(at.__dict__.get, at.__all__) if isinstance(variant, dm.Variant)]
SET = attention_sm80.instantiations(
    dtype=["bfloat16", "float16"], head_dims=[(64, 64), (128, 128), (256, 256)], variant=VARIANTS
)
ARCHS = ("sm_80", "sm_90")


def prebuilt() -> Iterator[Row]:
    """From an empty store: how long, how many objects, and how large they are."""
    with tempfile.TemporaryDirectory() as directory:
        config = replace(settings.current(), store=Path(directory, "store"))
        report = aot.build(SET, Path(directory, "out"), archs=ARCHS, settings=config)
    size = sum(file.size for artifact in report.artifacts for file in artifact.meta.files.values())
    cell = {
        "dtypes": "bfloat16, float16",
        "head_dims": "64, 128, 256",
        "variants": f"{len(VARIANTS)} built-in",
        "archs": ", ".join(ARCHS),
        "family": "sm80",
    }
    for unit, value in (("s", report.seconds), ("objects", len(report.artifacts)), ("MB", size / 1e6)):
        yield Row("gpu/prebuilt", cell, unit, value)
