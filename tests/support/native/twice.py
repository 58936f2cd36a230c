"""A kernel with device code that the emulator of GPUs runs."""

import dimorph as dm

twice = dm.Kernel(
    name="twice",
    entry="twice.cc",
    case=["twice_case.cc"],
    device=["twice.cu"],
    archs=["sm_80", "sm_90a"],
    axes=[dm.int_axis("width", "WIDTH", [64])],
)
