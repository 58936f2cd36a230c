"""The number of threads that kernels use."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from dimorph.settings import Settings
from dimorph.toolchain.jobs import processors


def number(settings: Settings) -> int:
    """Return the number of threads of the pool, the caller's included: `settings.num_threads` or its default."""
    if settings.num_threads is not None:
        return settings.num_threads
    torch: Any = sys.modules.get("torch")
    # While another thread imports torch, it lacks functions.
    wanted = torch.get_num_threads() if hasattr(torch, "get_num_threads") else settings.omp_num_threads
    return min(processors(), wanted or processors())


def torch_function() -> int | None:
    """Return the address of torch's C++ function `at::get_num_threads`; None: torch is not imported, or lacks it.

    Asking it takes 3 ns, so each parallel job can: `torch.set_num_threads` may be called at any time, and its number
    belongs to the calling thread.
    """
    extension: Any = sys.modules.get("torch._C")
    if extension is None or not hasattr(sys.modules.get("torch"), "get_num_threads"):
        return None
    try:
        # The symbol belongs to a library that the extension needs, and where that lies is torch's affair.
        function = ctypes.CDLL(extension.__file__)._ZN2at15get_num_threadsEv
    except AttributeError:
        return None
    return ctypes.cast(function, ctypes.c_void_p).value
