"""The two forms of the attention that the demo compares, and the one place that gets them from Dimorph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dimorph import attention
from dimorph.attention.kernels import attention_cpu
from dimorph.demo.minilm import Attention
from dimorph.settings import current


@dataclass(frozen=True)
class Form:
    """An attention function, and where its machine code came from.

    Attributes:
        attention: the function that `MiniLM.embed` calls.
        resolution: the artifacts that served so far and why each was taken, one printable line each; asked
            for after the calls, because artifacts are bound at their first use.
    """

    attention: Attention
    resolution: Callable[[], Sequence[str]]


class Forms(Protocol):
    """What the demo asks of Dimorph; a test hands in one of its own."""

    def jit(self, store: Path) -> Form:
        """Give the form that compiles for the one head dimension in use, at the latest at its first call.

        `store` is an empty directory, the only place where artifacts are kept or looked for.
        """
        ...

    def build(self, artifacts: Path) -> None:
        """Build the declared cases ahead of time into the empty directory `artifacts`."""
        ...

    def aot(self, artifacts: Path) -> Form:
        """Give the form that never compiles and is served from what `build` left in `artifacts`."""
        ...


def dimorph_forms() -> Forms:
    """Give the two forms of `dimorph.attention.attention`, plain variant, scale `1 / sqrt(head_dim)`.

    The only function of the demo that calls Dimorph.
    """
    return _DimorphForms()


class _DimorphForms:
    def jit(self, store: Path) -> Form:
        settings = replace(current(), store=store, shared_stores=())
        return _form(attention.Attention(policy="jit", settings=settings))

    def build(self, artifacts: Path) -> None:
        attention_cpu.build(
            artifacts, settings=replace(current(), store=artifacts.with_name("built"), shared_stores=())
        )

    def aot(self, artifacts: Path) -> Form:
        # The user's store is named and not there: nothing may be written.
        settings = replace(current(), store=artifacts.with_name("nowhere"), shared_stores=(artifacts,))
        return _form(attention.Attention(policy="aot", settings=settings))


def _form(operation: attention.Attention) -> Form:
    return Form(operation, lambda: [str(resolution) for resolution in operation.resolutions()])
