"""The two forms of a kernel, JIT and AOT, for tests that run the same body in each."""

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
        """Load the kernel for one value of each problem axis.

        `jit` loads exactly these values. `aot` builds the declared set ahead of time, with these values added where
        they are not declared, and loads it with a policy that never compiles.
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
    """Build all specializations of a set and return a module that dispatches over them; it never compiles."""
    instantiations = kernel.instantiations(**values)
    resolve(load_plan(instantiations, archs_here(settings.current())), settings.current(), "auto")
    return kernel.load(policy="aot", **values)
