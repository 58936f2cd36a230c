"""The class `Module`: a loaded kernel with its functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dimorph import settings
from dimorph.declare.instantiations import InstantiationSet
from dimorph.errors import DeclarationError
from dimorph.resolve import sealed
from dimorph.resolve.search import Resolution
from dimorph.resolve.wider import serving_set
from dimorph.runtime import recorder
from dimorph.runtime.dispatcher import Dispatcher, Shared
from dimorph.runtime.functions import Function
from dimorph.runtime.library import Instance

# The arguments of `load`.
_Arguments = tuple[InstantiationSet, "str | None", "settings.Settings | None"]


class Module:
    """The functions of a loaded kernel, as attributes: `module.affine(x, y)`.

    The arguments are those of the C++ function, with its names and defaults, then those of the variant in the order of
    its declaration, by name too if the module has one variant: any array that supports DLPack (it is not copied),
    numbers, strings, and None for an optional argument. The name of a keyword of Python ends with `_`, e.g. `in_`.
    `help(module.affine)` shows the arguments, and the comment of `///` lines above the C++ function.

    A function of a kernel with device code also takes `stream=`: a raw handle, or a stream of torch, CuPy or anything
    with `__cuda_stream__`; default: the current stream. For the fastest call keep the function in a variable.

    Each function has an attribute `native`, for callers that make many small calls: the same function without the
    conversions in Python. It runs on the current stream of torch or tvm-ffi, and for CuPy arrays on the default stream.
    A read-only NumPy array, or one of bfloat16, raises BufferError. Read the attribute anew before each call, because
    a call that adds a value to the module replaces it.

    A module can be sent to another process, which loads it again with the same arguments; a function cannot.
    """

    def __init__(self, dispatcher: Dispatcher, instance: Instance, loaded_by: _Arguments) -> None:
        if hidden := [name for name in dispatcher.unit.exports if hasattr(type(self), name)]:
            raise DeclarationError(f"kernel {dispatcher.instantiations.kernel.name}: {hidden[0]!r} is a name of Module")
        self._dispatcher = dispatcher
        self._instance = instance
        self._functions = tuple(dispatcher.unit.exports)
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
        # Functions are made when they are first asked for. Copy and pickle ask for other names before there are any.
        if name in self.__dict__.get("_functions", ()):
            made: Function = self.__dict__.setdefault(name, self._dispatcher.function(self._instance, name))
            self._dispatcher.keep(made)
            return made
        if name.startswith("_"):
            raise AttributeError(name)
        kernel = self._dispatcher.instantiations.kernel.name
        functions = ", ".join(self._functions) or "none"
        raise AttributeError(f"kernel {kernel} exports no function {name!r}; it has: {functions}")

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._functions]

    def __repr__(self) -> str:
        return f"<dimorph.Module {self._dispatcher.asked}: {', '.join(self._functions)}>"


def load(instantiations: InstantiationSet, policy: str | None, config: settings.Settings | None) -> Module:
    """Load an instantiation set; see `Kernel.load`."""
    arguments = instantiations, policy, config
    config = config or settings.current()
    policy = policy or config.policy
    if policy not in settings.POLICIES:
        raise ValueError(f"load: policy: expected one of {', '.join(settings.POLICIES)}, got {policy!r}")
    policy = sealed.policy(policy)
    recorder.follow(config.record)
    dispatcher = Dispatcher(serving_set(instantiations, config, policy), Shared(config, policy), instantiations)
    return Module(dispatcher, dispatcher.instance(), arguments)
