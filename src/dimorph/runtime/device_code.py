"""Device code of a loaded case, as the case sees it (DeviceCode of abi.h)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from dimorph.errors import Gone
from dimorph.store.artifact import Artifact
from dimorph.toolchain import archs, nvidia_driver


class _Image(ctypes.Structure):
    """Mirrors DeviceImage of abi.h."""

    _fields_ = (("arch", ctypes.c_char_p), ("data", ctypes.c_char_p), ("library", ctypes.c_void_p))


class _Code(ctypes.Structure):
    """Mirrors DeviceCode of abi.h."""

    _fields_ = (
        ("get_proc_address", ctypes.c_void_p),
        ("label", ctypes.c_char_p),
        ("problem", ctypes.c_char_p),
        ("images", ctypes.POINTER(ctypes.POINTER(_Image))),
        ("gpu_count", ctypes.c_int32),
    )


class DeviceCode:
    """What a case launches from, for each GPU of this process. It has to live as long as the case.

    Args:
        label: whose it is, for messages.
        artifacts: one for each kind of GPU; for a GPU that none fits, launches say what there is.
    """

    def __init__(self, label: str, artifacts: Sequence[Artifact]) -> None:
        found = nvidia_driver.find()
        gpus = found.gpus if found else ()
        images = {artifact.meta.target: _image(artifact) for artifact in artifacts}
        there = ", ".join(images) or "none"
        if found is None:
            problem = "there is no NVIDIA driver with a GPU"
        elif not found.get_proc_address:
            problem = (
                f"the NVIDIA driver is for CUDA {found.version[0]}.{found.version[1]}; 12.0 is the oldest that serves"
            )
        else:
            problem = f"the GPU runs none of the architectures that there are: {there}"
        table = (ctypes.POINTER(_Image) * len(gpus))()
        for ordinal, gpu in enumerate(gpus):
            fitting = [arch for arch in map(archs.by_name, images) if arch.runs_on(gpu)]
            if fitting:
                table[ordinal] = ctypes.pointer(images[max(fitting, key=lambda arch: arch.rank).name])
        self._kept = (images, table)
        self._code = _Code(
            found.get_proc_address if found else None, label.encode(), problem.encode(), table, len(gpus)
        )
        self.address = ctypes.addressof(self._code)


def _image(artifact: Artifact) -> _Image:
    try:
        # With a zero behind it, which PTX ends with.
        data = artifact.file.read_bytes() + b"\0"
    except FileNotFoundError as error:
        raise Gone(f"{artifact.meta.kernel}: {error}") from error
    return _Image(artifact.meta.target.encode(), data, None)
