"""The two forms of a kernel, for tests that run the same body in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dimorph as dm
from dimorph import settings
from dimorph.plan.load_plan import load_plan
from dimorph.resolve.levels import archs_here
from dimorph.resolve.resolver import resolve


@dataclass(frozen=True)
class Form:
    """One of the two forms of a kernel."""

    name: str

    def load(self, kernel: dm.Kernel, **values: object) -> dm.Module:
        """The kernel for one value of each problem axis.

        jit: exactly those values. aot: the declared set, all of it built ahead, with those values added where they
        are not declared; from then on nothing may be compiled.
        """
        if self.name == "jit":
            assert kernel.instantiations(**values).specialized
            return kernel.load(**values)
        wider: dict[str, Any] = {}
        for axis in kernel.axes:
            if axis.name in values and axis.value(values[axis.name]) not in axis.values:
                wider[axis.name] = [*axis.values, values[axis.name]]
        return built_ahead(kernel, **wider)


def built_ahead(kernel: dm.Kernel, **values: object) -> dm.Module:
    """A module that dispatches over a set of values, all of them built; it never compiles."""
    instantiations = kernel.instantiations(**values)
    resolve(load_plan(instantiations, archs_here(settings.current())), settings.current(), "auto")
    return kernel.load(policy="aot", **values)
