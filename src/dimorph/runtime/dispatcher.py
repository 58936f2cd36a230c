"""The path from a call to its case: an entry, the cases that it has bound, and the search for those that it lacks."""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dimorph._fork import ForkSafeLock
from dimorph._lazy import logger
from dimorph.declare.axis import Axis
from dimorph.declare.instantiations import InstantiationSet, Specialization
from dimorph.declare.variant import Param, Variant
from dimorph.errors import DeclarationError, Gone, MissingSpecialization, SpecializationMismatch
from dimorph.plan.load_plan import case_plan, load_plan
from dimorph.plan.pool import POOL
from dimorph.plan.unit import Unit
from dimorph.resolve import sealed
from dimorph.resolve.levels import archs_here
from dimorph.resolve.missing import missing_values
from dimorph.resolve.resolver import resolve
from dimorph.resolve.search import Resolution
from dimorph.resolve.wider import serving_set
from dimorph.runtime import background, ffi, library, recorder, stand_in, streams
from dimorph.runtime.arrays import as_callers, exported, refuse_unexportable
from dimorph.runtime.counts import Counts, opened_as
from dimorph.runtime.functions import arguments, bind, make
from dimorph.runtime.stand_in import StandIn
from dimorph.settings import Settings
from dimorph.source.signature import Signature

_log = logger("dimorph")


@dataclass
class Shared:
    """State shared by an entry and the wider entries that replace it.

    Attributes:
        settings: the settings of the load.
        given: the policy of the load.
        log: the resolutions so far.
        functions: the functions that Python holds, by name. Their method `rebind` makes them call a wider entry.
        lock: held while a wider entry is made: one at a time, so that each holds the values of those before it.
        widest: the last wider entry, and an instance of it. Weak, because they refer to this object.
    """

    settings: Settings
    given: str
    log: list[Resolution] = field(default_factory=list)
    functions: weakref.WeakValueDictionary[str, Any] = field(default_factory=weakref.WeakValueDictionary)
    lock: ForkSafeLock = field(default_factory=ForkSafeLock)
    widest: tuple[weakref.ref[Dispatcher], weakref.ref[library.Instance]] | None = None

    @property
    def policy(self) -> str:
        """The policy that counts now: a process may have been sealed since the load."""
        return sealed.policy(self.given)


class Dispatcher:
    """A loaded entry that binds its cases at their first call.

    Attributes:
        instantiations: the set that the entry was compiled for.
        asked: the set that was requested; the entry may have more values (see `resolve.wider`).
        shared: the state that wider entries share with this one.
        settings: the settings of the load.
        unit: the unit of the entry.
        opened: how what was loaded came: under None the entry, under their slots the cases.
        counts: the calls of each case.
    """

    def __init__(self, instantiations: InstantiationSet, shared: Shared, asked: InstantiationSet) -> None:
        self.instantiations = instantiations
        self.asked = asked
        self.shared = shared
        self.settings = shared.settings
        self._wider: dict[tuple[str, str], library.Instance] = {}
        self._pairs: dict[tuple[str, str, str], ffi.Wider] = {}
        self._lock = ForkSafeLock()
        self._archs = archs_here(shared.settings)
        first = [next(iter(instantiations))] if instantiations.specialized else []
        units = load_plan(instantiations, self._archs, first)
        self.unit = units[0]
        # By slot. The case of a specialized module is loaded with its entry, so that `load` raises its errors; the
        # cases of a dispatching module are loaded when they are called.
        self._cases: dict[int, library.Case | StandIn] = {}
        began = time.perf_counter()
        libraries, resolved = self._open(units, next(iter(first), None))
        self.opened = opened_as(resolved, 0, time.perf_counter() - began)
        for opened in libraries:
            if isinstance(opened, library.Entry):
                self._entry = opened
            elif isinstance(opened, (library.Case, StandIn)):
                self._cases[0] = opened
        # All instances count here. What they call keeps this object alive.
        self.counts = Counts(instantiations.slots, len(instantiations.kernel.functions))
        recorder.loaded(self)

    def instance(self) -> library.Instance:
        """Make a new instance of the entry. It keeps this object alive, so this object must not refer to it."""
        return self._entry.instance(ffi.Resolver(self.resolve), self.counts.calls)

    def function(self, instance: library.Instance, name: str) -> Any:
        """Make the Python function for an exported function of an instance."""
        signature = self.unit.exports[name]
        mask = self._entry.read_only(name)
        native = instance.function(name)

        def converted(args: tuple[Any, ...]) -> Any:
            return made.native(*exported(args, described(args), mask))

        def again(args: tuple[Any, ...]) -> Any:
            return finish(converted(args), args)

        def refuse(args: tuple[Any, ...]) -> None:
            refuse_unexportable(args, described(args))

        def described(args: tuple[Any, ...]) -> Callable[[int], str]:
            return lambda index: f"{name}: argument {self._argument(signature, mask, args, index)}"

        def converting(*args: Any) -> Any:
            try:
                return made.native(*args)
            except BufferError:
                return converted(args)
            except RuntimeError:
                refuse(args)
                raise

        def on_stream(args: tuple[Any, ...], stream: Any) -> Any:
            return finish(streams.call(converting, args, stream), args)

        def rebind(wider: library.Instance) -> None:
            made.native = wider.function(name)
            bind(made, finishing(made.native))

        creates = "NewTensor" in signature.result

        def finish(result: Any, args: tuple[Any, ...]) -> Any:
            return as_callers(result, args) if creates else result

        def finishing(native: Any) -> Any:
            return (lambda *args: as_callers(native(*args), args)) if creates else native

        given, streamed = arguments(signature, self._only_params()), on_stream if self.unit.kernel.device else None
        made = make(signature, given, finishing(native), again, refuse, streamed)
        made.rebind = rebind
        # See `Module` for what callers of `native` have to do themselves.
        made.native = native
        return made

    def keep(self, function: Any) -> None:
        """Let a function call the wider entries that replace this one, the newest at once."""
        self.shared.functions[function.__name__] = function
        if newest := self.shared.widest and self.shared.widest[1]():
            function.rebind(newest)

    def resolve(self, function: str, slot: int, axis: str | None, value: str | None) -> int:
        """Return the address that the entry needs, for a case that is not bound or for a value that it lacks.

        Args:
            function: the exported function that was called.
            slot: the slot of the case to bind, if `axis` is None.
            axis: the axis of a value that the entry lacks, or None.
            value: that value as text, or None.
        """
        if axis is not None and value is not None:
            self._check_asked(function, {axis: value})
            return self._wider_address(function, axis, value)
        with self._lock():
            if slot not in self._cases:
                picked = self.instantiations.picked(slot)
                self._check_asked(function, picked)
                self._check_held(picked)
                self._cases[slot] = self._find_case(slot)
                recorder.bound(self, slot)
            return self._cases[slot].function(function)

    def _argument(self, signature: Signature, mask: int, args: tuple[Any, ...], index: int) -> str:
        """Return the name of an argument, given by its index, as its caller knows it; else the index."""
        names = [parameter.name for parameter in signature.parameters or ()]
        if mask >> 63:  # the last parameter stands for those of a variant, see `read_only` in entry.h
            names[-1:] = [param.name for param in self._variant_params(args)]
        return f"'{names[index]}'" if index < len(names) else str(index)

    def _only_params(self) -> Sequence[Param] | None:
        """Return the parameters of the variant that the module was loaded for; None unless it is a single one."""
        variants = [variant for axis, values in self.asked.pairs() if axis.for_cases_only for variant in values]
        return variants[0].params if len(variants) == 1 else None

    def _variant_params(self, args: tuple[Any, ...]) -> tuple[Param, ...]:
        """Return the parameters of the variant that a call selects; of several, it passes the name."""
        newest = (self.shared.widest and self.shared.widest[0]()) or self
        variants = [one for values in newest.instantiations.values for one in values if isinstance(one, Variant)]
        names = [arg for arg in args if isinstance(arg, str)]
        selected = variants if len(variants) == 1 else [one for one in variants if one.name in names]
        return tuple(selected[0].params) if selected else ()

    def _wider_address(self, function: str, axis_name: str, text: str) -> int:
        """Return the address of an `ffi.Wider` for an entry that has one more value of an axis."""
        with self.shared.lock():
            if (axis_name, text) not in self._wider:
                self._wider[axis_name, text] = self._widen(axis_name, text)
            other = self._wider[axis_name, text]
            pair = self._pairs.setdefault((function, axis_name, text), ffi.Wider(other.symbol(function), other.address))
            return ctypes.addressof(pair)

    def _check_asked(self, function: str, given: dict[str, str]) -> None:
        """Refuse a value that an entry compiled for exactly the requested values would refuse, with its message."""
        for axis, left in self.asked.pairs():
            text = given.get(axis.name)
            if text is not None and len(left) == 1 and text != axis.text(left[0]):
                raise SpecializationMismatch(
                    f"{function}: axis {axis.name}: the call has {text}, "
                    f"this module was compiled for {axis.text(left[0])}"
                )

    def _check_held(self, given: dict[str, str]) -> None:
        """Refuse a value that the entry has but the load did not request, if its text does not suffice to find it."""
        for axis, left in self.asked.pairs():
            text = given.get(axis.name)
            if text is None or text in (axis.text(value) for value in left):
                continue
            if not axis.is_found_by(text):
                raise self._missing({axis.name: text}, f"this module was loaded for {axis.texts(left)}")

    def _find_case(self, slot: int) -> library.Case | StandIn:
        specialization = self.instantiations.specialization(slot) or self._unlisted(slot)
        began = time.perf_counter()
        opened, resolved = self._open(case_plan(specialization, self._archs), specialization)
        self.opened |= opened_as(resolved, slot, time.perf_counter() - began)
        return next(case for case in opened if isinstance(case, (library.Case, StandIn)))

    def _open(
        self, units: list[Unit], covered: Specialization | None = None
    ) -> tuple[list[library.Library | StandIn], list[Resolution]]:
        """Find or build units, and load them. For the case of `covered`, another one may serve until it is built."""
        if library.pool_runs():
            units = [unit for unit in units if unit.kernel is not POOL]
        try:
            return self._open_once(units, covered)
        except Gone as error:
            # Another process removed the artifact between the search and the load.
            _log.info("searching again: %s", error)
            return self._open_once(units, covered)

    def _open_once(
        self, units: list[Unit], covered: Specialization | None
    ) -> tuple[list[library.Library | StandIn], list[Resolution]]:
        refusal = None
        if self.instantiations.kernel.device and streams.capturing():
            refusal = (
                "a CUDA graph is being captured, and nothing is compiled during a capture; "
                "call the function once with these values before the capture"
            )
        found = None
        if covered and not refusal and self.shared.settings.on_miss == "serve" and self.shared.policy != "aot":
            exports = self.unit.exports
            found = stand_in.find(covered, units, exports, self._archs, self.shared.settings, self.shared.policy)
        resolved = resolve(found.units if found else units, self.shared.settings, self.shared.policy, refusal)
        resolved += found.resolutions if found else []
        images = [r.artifact for r in resolved if r.unit.kind == "device"]
        # A plan lists the thread pool last, but it must be loaded before the cases that use it.
        loaded = [
            library.load(r.artifact, r.unit, self.shared.settings, images)
            for r in reversed(resolved)
            if r.unit.kind != "device"
        ]
        self.shared.log += resolved
        if not (found and covered):
            return [*loaded], resolved
        serving = [
            self._until_built(covered, one, found.what) if isinstance(one, library.Case) else one for one in loaded
        ]
        return serving, resolved

    def _until_built(self, covered: Specialization, case: library.Case, what: str) -> StandIn:
        """Let a case serve instead of that of `covered`, which is built in the background."""
        serving = StandIn(case)
        named = f"{covered.kernel.name} ({covered})"

        def build() -> None:
            try:
                opened, _ = self._open(case_plan(covered, self._archs))
                serving.change(next(one for one in opened if isinstance(one, library.Case)))
            except Exception as error:
                _log.error("%s cannot be built, so %s goes on serving: %s", named, what, error)
            else:
                _log.info("%s is built, and serves from now on instead of %s", named, what)

        _log.info("%s is in no store: %s serves while it is built", named, what)
        background.start(build, f"build of {named}")
        return serving

    def _widen(self, axis_name: str, text: str) -> library.Instance:
        """Return an entry that has one more value of an axis, newer than this one; rebind Python's functions to it.

        Another thread may have made it while this one waited, for a call of a function that was bound before.
        """
        axis = self.instantiations.kernel.axes[self.instantiations.kernel.position(axis_name)]
        try:
            value = axis.value(text)
        except DeclarationError as error:
            raise self._missing({axis_name: text}, str(error)) from error
        if self.shared.policy == "aot":
            held = axis.texts(self.instantiations.values[self.instantiations.kernel.position(axis_name)])
            why = sealed.REASON if sealed.raises() else "the policy is aot, which never compiles"
            reason = f"this module holds {held}, and {why}"
            return self._built_apart(axis, value, reason, None)
        widest = (self.shared.widest and self.shared.widest[0]()) or self
        instance = self.shared.widest and self.shared.widest[1]()
        if value in widest.instantiations.values[widest.instantiations.kernel.position(axis_name)]:
            return instance or widest.instance()
        more, asked = (one.widened(axis_name, value) for one in (widest.instantiations, widest.asked))
        try:
            wider = Dispatcher(more, self.shared, asked)
        except MissingSpecialization as error:
            return self._built_apart(axis, value, str(error), error)
        instance = wider.instance()
        self.shared.widest = weakref.ref(wider), weakref.ref(instance)
        for function in list(self.shared.functions.values()):
            function.rebind(instance)
        return instance

    def _built_apart(
        self, axis: Axis, value: Any, reason: str, cause: MissingSpecialization | None
    ) -> library.Instance:
        """Load an entry for one value of an axis alone, built ahead of time, where a wider entry cannot be compiled.

        Raises:
            MissingSpecialization: there is no such entry either; `reason` says why no wider entry was compiled.
        """
        alone = self.asked.with_values(axis.name, (value,))
        try:
            serving = serving_set(alone, self.shared.settings, self.shared.policy)
            return Dispatcher(serving, self.shared, alone).instance()
        except MissingSpecialization as error:
            raise self._missing({axis.name: axis.text(value)}, reason) from (cause or error)

    def _unlisted(self, slot: int) -> Specialization:
        """Return the combination of a slot that the sparse list of the set leaves out.

        Raises:
            MissingSpecialization: the filter of the kernel excludes it, or the policy is `aot`.
        """
        everything = replace(self.instantiations, only=None)
        specialization = everything.specialization(slot)
        if specialization is not None and self.shared.policy != "aot":
            return specialization
        picked = self.instantiations.picked(slot)
        reason = "no such combination is declared" if specialization is None else "the list of this module lacks it"
        raise self._missing(picked, reason)

    def _missing(self, values: dict[str, str], reason: str) -> MissingSpecialization:
        held = self.instantiations
        known = {one.name: one for left in held.values for one in left if isinstance(one, Variant)}
        other = self.asked.beyond_declared()
        beside = {
            axis.name: ",".join(map(axis.text, other[axis.name])) for axis in held.kernel.axes if other.get(axis.name)
        }
        return missing_values(held.kernel, values, beside, known, reason, held.texts())
