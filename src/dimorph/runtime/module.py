"""A loaded kernel: binds cases when they are first called, and gives Python the functions of the entry."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from sys import modules
from typing import Any

from dimorph import settings
from dimorph.errors import DeclarationError, Gone, MissingSpecialization, SpecializationMismatch
from dimorph.kernel import InstantiationSet, Specialization
from dimorph.logs import logger
from dimorph.plan import unit as plan
from dimorph.resolve.resolver import Resolution, build_command, device_units, resolve, serving
from dimorph.runtime import ffi, library, streams
from dimorph.runtime.arrays import exported
from dimorph.source.include_scan import Files

_log = logger("dimorph")


class Module:
    """The functions of a loaded kernel, as attributes: `module.affine(x, y)`.

    Keep the function object for the fastest call. Arguments are what the C++ function takes: any array that speaks
    DLPack (not copied), numbers, strings, None for an optional; then the variant's additional arguments in the
    order it declares them.
    """

    def __init__(self, dispatcher: Dispatcher, instance: library.Instance) -> None:
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
        """Which artifacts serve so far and why: the entry's, then each case's in the order they were bound."""
        return tuple(self._dispatcher.family.log)

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
            for axis, left in zip(values.kernel.axes, values.values, strict=True)
            if left
        )
        return f"<dimorph.Module {values.kernel.name}({axes}): {', '.join(self._functions)}>"


def load(instantiations: InstantiationSet, policy: str | None, config: settings.Settings | None) -> Module:
    """See `Kernel.load`."""
    config = config or settings.current()
    policy = policy or config.policy
    if policy not in settings.POLICIES:
        raise ValueError(f"load: policy: expected one of {', '.join(settings.POLICIES)}, got {policy!r}")
    family = Family(config, policy)
    dispatcher = Dispatcher(serving(instantiations, config, policy), family, instantiations)
    return Module(dispatcher, dispatcher.instance())


@dataclass
class Family:
    """What an entry and the wider ones that follow it share.

    Attributes:
        log: the resolutions so far.
        functions: those that Python holds, by name. Their `rebind` makes them call a wider entry from then on.
    """

    settings: settings.Settings
    policy: str
    log: list[Resolution] = field(default_factory=list)
    functions: weakref.WeakValueDictionary[str, Any] = field(default_factory=weakref.WeakValueDictionary)


class Dispatcher:
    """An entry, and what it needs to find the cases that are not bound yet.

    Attributes:
        instantiations: the set that the entry is for.
        asked: the values that calls may have, where the entry has more of them (see `resolve.serving`).
    """

    def __init__(self, instantiations: InstantiationSet, family: Family, asked: InstantiationSet) -> None:
        self.instantiations = instantiations
        self.asked = asked
        self.family = family
        self._wider: dict[tuple[str, str], library.Instance] = {}
        self._pairs: dict[tuple[str, str, str], ffi.Wider] = {}
        self._lock = threading.RLock()
        files = Files()
        units = [plan.entry_unit(instantiations, files)]
        if instantiations.specialized and instantiations.kernel.case:
            units += self._case_units(next(iter(instantiations)), files)
        self.unit = units[0]
        # By slot. A single case is loaded with its entry, so that its errors come from `load`; others when called.
        self._cases: dict[int, library.Case] = {}
        for opened in self._open(units):
            if isinstance(opened, library.Entry):
                self._entry = opened
            elif isinstance(opened, library.Case):
                self._cases[0] = opened
        _dispatchers.add(self)

    def instance(self) -> library.Instance:
        """What functions are made from. It keeps this object alive, so this object must not hold it."""
        places = self.instantiations.slots * len(self.instantiations.kernel.functions)
        return self._entry.instance(ffi.resolver(self.resolve), places)

    def functions(self, instance: library.Instance) -> dict[str, Callable[..., Any]]:
        """The exports, callable."""
        return {name: self._function(instance, name, names) for name, names in self.unit.exports.items()}

    def resolve(self, function: str, slot: int, axis: str | None, value: str | None) -> int:
        """Called by the entry when it lacks something; the address of what it asks for."""
        with self._lock:
            if axis is not None and value is not None:
                self._check_asked(function, {axis: value})
                return self._wider_address(function, axis, value)
            if slot not in self._cases:
                picked = self.instantiations.picked(slot)
                self._check_asked(function, picked)
                self._check_held(picked)
                self._cases[slot] = self._find_case(slot)
            return self._cases[slot].function(function)

    def _function(self, instance: library.Instance, name: str, parameters: str) -> Callable[..., Any]:
        mask = self._entry.read_only(name)
        function = instance.function(name)

        def again(args: tuple[Any, ...]) -> Any:
            return function(*exported(args, name, parameters, mask))

        # On the path of every call, so it names as little as possible.
        def call(*args: Any) -> Any:
            try:
                return function(*args)
            except BufferError:
                return again(args)

        def rebind(wider: library.Instance) -> None:
            nonlocal function
            function = made.native = wider.function(name)

        def call_on_stream(*args: Any, stream: Any = None) -> Any:
            if stream is not None or "cupy" in modules:
                return streams.call(call, args, stream)
            try:  # as in `call`, which would be one more call
                return function(*args)
            except BufferError:
                return again(args)

        made: Any = call_on_stream if self.unit.kernel.device else call
        made.rebind = rebind
        # For who calls often and has looked: on the current stream, no array of CuPy's, BufferError seen to.
        made.native = function
        self.family.functions[name] = made
        made.__name__ = made.__qualname__ = name
        made.__doc__ = f"{name}({parameters})"
        return made  # type: ignore[no-any-return]

    def _wider_address(self, function: str, axis_name: str, text: str) -> int:
        """The address of an ffi.Wider for an entry that has one more value of an axis."""
        if (axis_name, text) not in self._wider:
            self._wider[axis_name, text] = self._widen(axis_name, text)
        other = self._wider[axis_name, text]
        pair = self._pairs.setdefault((function, axis_name, text), ffi.Wider(other.symbol(function), other.address))
        return ctypes.addressof(pair)

    def _check_asked(self, function: str, given: dict[str, str]) -> None:
        """Refuses what an entry compiled for just the values asked for would refuse, in the same words."""
        for axis, left in zip(self.asked.kernel.axes, self.asked.values, strict=True):
            text = given.get(axis.name)
            if text is not None and len(left) == 1 and text != axis.text(left[0]):
                raise SpecializationMismatch(
                    f"{function}: axis {axis.name}: the call has {text}, "
                    f"this module was compiled for {axis.text(left[0])}"
                )

    def _check_held(self, given: dict[str, str]) -> None:
        """Refuses values that the entry has, that were not asked for, and that may not or cannot be built."""
        for axis, left in zip(self.asked.kernel.axes, self.asked.values, strict=True):
            text = given.get(axis.name)
            if text is None or text in (axis.text(value) for value in left):
                continue
            declared = text in (axis.text(value) for value in axis.values)
            if self.family.policy == "aot" or (axis.kind == "variant" and not declared):
                raise self._missing({axis.name: text}, f"this module was loaded for {axis.texts(left)}")

    def _find_case(self, slot: int) -> library.Case:
        specialization = self.instantiations.specialization(slot) or self._unlisted(slot)
        opened = self._open(self._case_units(specialization, Files()))
        return next(case for case in opened if isinstance(case, library.Case))

    def _case_units(self, specialization: Specialization, files: Files) -> list[plan.Unit]:
        """The case of a specialization, and its device code."""
        return [plan.case_unit(specialization, files), *device_units(specialization, self.family.settings, files)]

    def _open(self, units: list[plan.Unit]) -> list[library.Library]:
        """Finds or builds units, and the thread pool where one needs it, and loads them."""
        pool = library.pool_units() if any(unit.parallel for unit in units) else []
        try:
            return self._open_once(units, pool)
        except Gone as error:
            # Somebody pruned the store between the look and the load.
            _log.info("looking again: %s", error)
            return self._open_once(units, pool)

    def _open_once(self, units: list[plan.Unit], pool: list[plan.Unit]) -> list[library.Library]:
        refusal = None
        if self.instantiations.kernel.device and streams.capturing():
            refusal = "a CUDA graph is being captured, and nothing is compiled meanwhile; call it once before"
        resolved = resolve([*units, *pool], self.family.settings, self.family.policy, refusal)
        images = [r.artifact for r in resolved if r.unit.kind == "device"]
        # The pool is looked for with the kernel that needs it, and has to be there before its cases.
        loaded = [
            library.load(r.artifact, r.unit, self.family.settings, images)
            for r in reversed(resolved)
            if r.unit.kind != "device"
        ]
        self.family.log += resolved
        return loaded

    def _widen(self, axis_name: str, text: str) -> library.Instance:
        kernel = self.instantiations.kernel
        position = kernel.position(axis_name)
        axis, here = kernel.axes[position], self.instantiations.values[position]
        try:
            value = axis.value(text)
        except DeclarationError as error:
            raise self._missing({axis_name: text}, str(error)) from error
        more, asked = (held.widened(axis_name, value) for held in (self.instantiations, self.asked))
        try:
            if self.family.policy == "aot":
                raise MissingSpecialization(
                    f"this module holds {axis.texts(here)}, and the policy is aot, which never compiles"
                )
            wider = Dispatcher(more, self.family, asked)
        except MissingSpecialization as error:
            return self._built_apart(position, value, error)
        instance = wider.instance()
        for function in list(self.family.functions.values()):
            function.rebind(instance)
        return instance

    def _built_apart(self, position: int, value: Any, reason: MissingSpecialization) -> library.Instance:
        """An entry for one value that this one lacks and that may not be compiled, but was built by itself."""
        values = list(self.asked.values)
        values[position] = (value,)
        alone = InstantiationSet(self.asked.kernel, tuple(values), self.asked.only)
        try:
            other = Dispatcher(serving(alone, self.family.settings, self.family.policy), self.family, alone)
        except MissingSpecialization:
            axis = alone.kernel.axes[position]
            raise self._missing({axis.name: axis.text(value)}, str(reason)) from reason
        return other.instance()

    def _unlisted(self, slot: int) -> Specialization:
        """A combination that the sparse list leaves out: built when asked for, unless the kernel's filter bars it."""
        everything = InstantiationSet(self.instantiations.kernel, self.instantiations.values)
        specialization = everything.specialization(slot)
        if specialization is not None and self.family.policy != "aot":
            return specialization
        picked = self.instantiations.picked(slot)
        reason = "no such combination is declared" if specialization is None else "the list of this module lacks it"
        raise self._missing(picked, reason)

    def _missing(self, values: dict[str, str], reason: str) -> MissingSpecialization:
        kernel = self.instantiations.kernel
        there = {
            axis.name: [axis.text(v) for v in left]
            for axis, left in zip(kernel.axes, self.instantiations.values, strict=True)
        }
        asked = ", ".join(f"{name}={text}" for name, text in values.items())
        command = build_command(kernel, values)
        held = "; ".join(f"{name}: {', '.join(texts)}" for name, texts in there.items() if texts)
        return MissingSpecialization(
            f"{kernel.name}: {asked} is not there: {reason}\n  there is: {held}\n  build it: {command}",
            kernel=kernel.name,
            missing=values,
            available=there,
            command=command,
        )


_dispatchers: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


def _forget_locks() -> None:
    # Other threads may have held them when the process forked; those do not exist here.
    for dispatcher in list(_dispatchers):
        dispatcher._lock = threading.RLock()


os.register_at_fork(after_in_child=_forget_locks)
