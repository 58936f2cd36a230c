"""The two kernels, for CPUs and for GPUs: they share the entry and all headers."""

from __future__ import annotations

import dimorph as dm

# Kinds of surfaces beside diffuse ones, a bit each. Code for the others is not compiled.
DIFFUSE, METAL, GLASS = 0, 1, 2

LISTED = dm.Variant(
    "Listed",
    header="listed.h",
    params=[
        dm.tensor("shapes", "float32"),
        dm.tensor("materials", "float32"),
        dm.tensor("lamp", "float32", shape="17"),
        dm.scalar("count", "int32"),
        dm.scalar("blend", "float32"),
    ],
)
CORNELL_BOX = dm.Variant("CornellBox", header="scenes.h")

AXES = [
    dm.int_axis("features", "FEATURES", [DIFFUSE, METAL | GLASS], accepts=lambda features: 0 <= features <= 3),
    dm.variant_axis("scene", "SCENE", default=LISTED, values=[LISTED, CORNELL_BOX]),
]

KERNEL = dm.Kernel(name="render", axes=AXES)
KERNEL_GPU = dm.Kernel(
    name="render_gpu",
    entry="render.cc",
    config="render_config.h",
    functions=["render"],
    device=["render.cu"],
    archs=["sm_80", "sm_90"],
    axes=[
        *AXES,
        dm.int_axis("block", "BLOCK", [], choose=lambda _: 128),  # threads
        dm.int_axis("split", "SPLIT", [], choose=lambda _: 1),  # threads that share the paths of a pixel
    ],
)
