"""Import tvm-ffi without importing torch.

tvm-ffi imports torch if it is installed, which takes a second. Here it gets a stand-in instead, unless the process has
imported torch already. The stand-in becomes torch once the caller imports that.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any


@lru_cache(maxsize=1)
def tvm_ffi() -> Any:
    """Return the module tvm_ffi, imported at the first call."""
    if "torch" in sys.modules or "tvm_ffi" in sys.modules:
        import tvm_ffi

        return tvm_ffi
    finder = _Finder()
    # A new list each time: another thread may be walking through the old one.
    sys.meta_path = [finder, *sys.meta_path]
    try:
        import tvm_ffi
    finally:
        sys.meta_path = [other for other in sys.meta_path if other is not finder]
        sys.modules.pop(_StandIn.name, None)
    finder.stand_in.complete(tvm_ffi)
    return tvm_ffi


class _Finder:
    """A finder that answers `import torch` with a stand-in where modules of tvm-ffi ask, in whichever thread."""

    def __init__(self) -> None:
        self.stand_in = _StandIn()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        asking = _asking_module()
        if asking == "tvm_ffi._optional_torch_c_dlpack":
            # It speeds up tensors of torch before 2.10, and is run later.
            raise ModuleNotFoundError("torch is not imported yet", name=name)
        if asking.partition(".")[0] != "tvm_ffi":
            return None
        # Under a name of its own, so that `sys.modules` never holds a torch that is none.
        return ModuleSpec(_StandIn.name, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.stand_in

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the stand-in is complete."""


class _StandIn(ModuleType):
    """A module that tvm-ffi takes for torch."""

    name = "dimorph.runtime.tvm.torch"

    def __init__(self) -> None:
        super().__init__(self.name)
        self._package: Any = None
        # The dtypes that tvm-ffi has asked for, by name.
        self._awaited: dict[str, _Awaited] = {}
        self._table: dict[Any, Any] = {}

    def complete(self, package: Any) -> None:
        """Keep the package, once it is imported."""
        self._find_table(gc.get_objects)
        self._package = package

    def __getattr__(self, name: str) -> Any:
        torch = sys.modules.get("torch")
        if self._package is None:
            if name.startswith("__"):
                raise AttributeError(name)
            if name in _TYPES:
                return _Nothing
            # While the table is made, it is among the youngest objects, which are few.
            self._find_table(lambda: gc.get_objects(generation=0))
            return self._awaited.setdefault(name, _Awaited(name))
        if torch is None and name in _TYPES:
            return _Nothing
        if getattr(getattr(torch, "__spec__", None), "_initializing", False):
            return getattr(torch, name, _Nothing) if name in _TYPES else getattr(torch, name)
        if torch is None:
            # Another user of tvm-ffi asks for something of torch, such as its current stream.
            torch = import_module("torch")
        self._adopt(torch)
        return getattr(torch, name)

    def _find_table(self, objects: Callable[[], list[Any]]) -> None:
        """Find tvm-ffi's table of dtypes, which has no name in Python, by the first of its keys."""
        if self._awaited and not self._table:
            first = next(iter(self._awaited.values()))
            self._table = next((one for one in objects() if type(one) is dict and first in one), {})

    def _adopt(self, torch: Any) -> None:
        """Put torch in the place of this stand-in."""
        package = self._package
        for name, awaited in self._awaited.items():
            value = self._table.pop(awaited, None)
            if value is not None and hasattr(torch, name):
                self._table[getattr(torch, name)] = value
        for module in (package, package.core, package._convert, package.stream):
            if getattr(module, "torch", None) is self:
                module.torch = torch
        optional = package._optional_torch_c_dlpack
        if hasattr(optional, "_LIB"):  # not switched off by tvm-ffi's own variable
            optional._LIB = optional.load_torch_c_dlpack_extension()
            optional.patch_torch_cuda_stream_protocol()


class _Awaited:
    """The key of a dtype of torch in tvm-ffi's table, until torch is imported."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Nothing:
    """A type without objects: no argument is a tensor or a dtype of torch before torch is imported."""


_TYPES = ("Tensor", "dtype")


def _asking_module() -> str:
    """Return the name of the module that has the import statement which is running."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if not name.startswith(("importlib.", "_frozen_importlib")):
            return name
        frame = frame.f_back
    return ""
