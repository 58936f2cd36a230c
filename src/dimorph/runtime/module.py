"""The class `Module`: a loaded kernel with its functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from dimorph import settings
from dimorph.declare.instantiations import InstantiationSet
from dimorph.errors import DeclarationError
from dimorph.resolve.search import Resolution
from dimorph.resolve.wider import serving_set
from dimorph.runtime.dispatcher import Dispatcher, Shared
from dimorph.runtime.library import Instance


class Function(Protocol):
    """An exported function of a loaded kernel; see `Module`."""

    native: Callable[..., Any]

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call the function."""


# The arguments of `load`.
_Arguments = tuple[InstantiationSet, "str | None", "settings.Settings | None"]


class Module:
    """The functions of a loaded kernel, as attributes: `module.affine(x, y)`.

    The arguments are those of the C++ function, then the additional arguments of the variant in the order of its
    declaration: any array that supports DLPack (it is not copied), numbers, strings, and None for an optional argument.
    A function of a kernel with device code also takes `stream=`: a raw handle, or a stream of torch, CuPy or anything
    with `__cuda_stream__`; default: the current stream. For the fastest call keep the function in a variable.

    Each function has an attribute `native`, for callers that make many small calls: the same function without the
    conversions in Python. It runs on the current stream of torch or tvm-ffi, and for CuPy arrays on the default stream.
    A read-only NumPy array, or one of bfloat16, raises BufferError. Read the attribute anew before each call, because
    a call that adds a value to the module replaces it.

    A module can be sent to another process, which loads it again with the same arguments; a function cannot.
    """

    def __init__(self, dispatcher: Dispatcher, instance: Instance, loaded_by: _Arguments) -> None:
        functions = dispatcher.functions(instance)
        if hidden := [name for name in functions if hasattr(type(self), name)]:
            raise DeclarationError(f"kernel {dispatcher.instantiations.kernel.name}: {hidden[0]!r} is a name of Module")
        self._dispatcher = dispatcher
        self.__dict__.update(functions)
        self._functions = tuple(functions)
        self._loaded_by = loaded_by

    def __reduce__(self) -> tuple[Any, _Arguments]:
        return load, self._loaded_by

    def __copy__(self) -> Module:
        return self  # what is loaded is shared

    def __deepcopy__(self, memo: object) -> Module:
        return self

    @property
    def instantiations(self) -> InstantiationSet:
        """The instantiation set that the module was loaded for."""
        return self._dispatcher.asked

    @property
    def resolutions(self) -> tuple[Resolution, ...]:
        """The artifacts that were loaded so far, and why each was chosen: the entry, then cases as they were bound."""
        return tuple(self._dispatcher.shared.log)

    def __getattr__(self, name: str) -> Function:
        if name.startswith("_"):  # copy and pickle look such names up before there is a dispatcher
            raise AttributeError(name)
        kernel = self._dispatcher.instantiations.kernel.name
        functions = ", ".join(self._functions) or "none"
        raise AttributeError(f"kernel {kernel} exports no function {name!r}; it has: {functions}")

    def __repr__(self) -> str:
        return f"<dimorph.Module {self._dispatcher.asked}: {', '.join(self._functions)}>"


def load(instantiations: InstantiationSet, policy: str | None, config: settings.Settings | None) -> Module:
    """Load an instantiation set; see `Kernel.load`."""
    arguments = instantiations, policy, config
    config = config or settings.current()
    policy = policy or config.policy
    if policy not in settings.POLICIES:
        raise ValueError(f"load: policy: expected one of {', '.join(settings.POLICIES)}, got {policy!r}")
    dispatcher = Dispatcher(serving_set(instantiations, config, policy), Shared(config, policy), instantiations)
    return Module(dispatcher, dispatcher.instance(), arguments)
