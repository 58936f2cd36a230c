"""A kernel for the GPU: its entry and case are compiled like any other, its device code beside them, in both forms."""

import tempfile
from dataclasses import replace

import dimorph as dm
from dimorph import settings

rms = dm.Kernel(
    name="rms",
    device=["rms.cu"],  # on the GPU; rms_case.cc, on the host, launches it
    archs=["sm_80", "sm_90a"],  # what it is built for ahead of time; sm_80 stands for later GPUs too
    axes=[
        dm.dtype_axis("dtype", "DType", ["float32", "float16", "bfloat16"]),
        dm.int_axis("width", "WIDTH", [1024, 4096], accepts=lambda width: width % 8 == 0),
    ],
)


def main() -> None:
    with tempfile.TemporaryDirectory() as out:  # needs no GPU
        report = rms.build(out, dtype="float16", width=1024)
        for artifact in report.artifacts:
            if artifact.meta.device:
                print(artifact.meta.target, artifact.meta.device.kernels)

    hopper = replace(settings.current(), arch="sm_90a")
    module = rms.load(settings=hopper, dtype="float16", width=1024)
    code = module.resolutions[-1].artifact.meta.device
    assert code and code.kernels["rms_kernel"]["spill_stores"] == 0

    try:
        import torch
    except ModuleNotFoundError:
        print("no torch here, so nothing is launched")
        return
    if not torch.cuda.is_available():
        print("no GPU here, so nothing is launched")
        return
    x = torch.randn(4, 1024, device="cuda", dtype=torch.float16)
    y, z = torch.empty_like(x), torch.empty_like(x)
    rms.load(dtype="float16", width=1024).rms(x, y, 1e-6)
    rms.load().rms(x, z, 1e-6)
    expected = torch.nn.functional.rms_norm(x, (1024,), eps=1e-6)
    print("difference from torch:", float((y - expected).abs().max()))
    print("both forms give the same bits:", torch.equal(y, z))


if __name__ == "__main__":
    main()
