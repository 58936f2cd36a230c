"""A loaded kernel, as Python calls it."""

from __future__ import annotations

from typing import Any

from dimorph import settings
from dimorph.declare.instantiations import InstantiationSet
from dimorph.errors import DeclarationError
from dimorph.resolve.search import Resolution
from dimorph.resolve.wider import serving_set
from dimorph.runtime.dispatcher import Dispatcher, Shared
from dimorph.runtime.library import Instance


class Module:
    """The functions of a loaded kernel, as attributes: `module.affine(x, y)`.

    Keep the function object for the fastest call. Arguments are those of the C++ function: any array that speaks
    DLPack (not copied), numbers, strings, None for an optional; then the variant's additional arguments in the
    order in which it declares them. A function of a kernel with device code takes `stream=` too.

    Each function has an attribute `native`: the function without help from Python, for callers that make many small
    calls. It runs on the current stream and takes only arrays that tvm-ffi exports by itself; a read-only NumPy array
    or one of bfloat16 raises BufferError, and a CuPy array runs on the default stream. Read the attribute anew for each
    call: when a value comes that the module lacked, a wider entry takes the function's place.
    """

    def __init__(self, dispatcher: Dispatcher, instance: Instance) -> None:
        functions = dispatcher.functions(instance)
        if hidden := [name for name in functions if hasattr(type(self), name)]:
            raise DeclarationError(f"kernel {dispatcher.instantiations.kernel.name}: {hidden[0]!r} is a name of Module")
        self._dispatcher = dispatcher
        self.__dict__.update(functions)
        self._functions = tuple(functions)

    @property
    def instantiations(self) -> InstantiationSet:
        """The values left on each axis when it was loaded."""
        return self._dispatcher.asked

    @property
    def resolutions(self) -> tuple[Resolution, ...]:
        """The artifacts that serve so far, and why: the entry's, then each case's in the order they were bound."""
        return tuple(self._dispatcher.shared.log)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for by copy and pickle, also before there is a dispatcher
            raise AttributeError(name)
        kernel = self._dispatcher.instantiations.kernel.name
        functions = ", ".join(self._functions) or "none"
        raise AttributeError(f"kernel {kernel} exports no function {name!r}; it has: {functions}")

    def __repr__(self) -> str:
        values = self._dispatcher.asked
        axes = ", ".join(
            f"{axis.name}={axis.text(left[0]) if len(left) == 1 else axis.texts(left)}"
            for axis, left in values.pairs()
            if left
        )
        return f"<dimorph.Module {values.kernel.name}({axes}): {', '.join(self._functions)}>"


def load(instantiations: InstantiationSet, policy: str | None, config: settings.Settings | None) -> Module:
    """Load a set of specializations; see `Kernel.load`."""
    config = config or settings.current()
    policy = policy or config.policy
    if policy not in settings.POLICIES:
        raise ValueError(f"load: policy: expected one of {', '.join(settings.POLICIES)}, got {policy!r}")
    dispatcher = Dispatcher(serving_set(instantiations, config, policy), Shared(config, policy), instantiations)
    return Module(dispatcher, dispatcher.instance())
