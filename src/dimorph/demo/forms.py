"""The two forms of attention that the demo compares, and the only module of the demo that calls Dimorph."""

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
    """An attention function and the origin of its machine code.

    Attributes:
        attention: the function that `MiniLM.embed` calls.
        resolution: returns a printable line for each artifact that was loaded so far, with the reason for the choice.
            It is called after the attention function, because cases are loaded at their first call.
    """

    attention: Attention
    resolution: Callable[[], Sequence[str]]


class Forms(Protocol):
    """The interface between the demo and Dimorph, which a test can replace."""

    def jit(self, store: Path) -> Form:
        """Return the form that compiles for the head dimension in use, at the latest at its first call.

        `store` is an empty directory, the only store that artifacts are searched in and added to.
        """
        ...

    def build(self, artifacts: Path) -> None:
        """Build the declared cases ahead of time into the empty directory `artifacts`."""
        ...

    def aot(self, artifacts: Path) -> Form:
        """Return the form that never compiles and loads the artifacts that `build` put into `artifacts`."""
        ...


def dimorph_forms() -> Forms:
    """Return the two forms of `dimorph.attention.attention`: plain variant, scale `1 / sqrt(head_dim)`."""
    return _DimorphForms()


def prebuilt() -> Form:
    """Return the form that never compiles and loads what the stores of the settings hold."""
    return _form(attention.Attention(policy="aot"))


class _DimorphForms:
    def jit(self, store: Path) -> Form:
        settings = replace(current(), store=store, shared_stores=())
        return _form(attention.Attention(policy="jit", settings=settings))

    def build(self, artifacts: Path) -> None:
        attention_cpu.build(
            artifacts, settings=replace(current(), store=artifacts.with_name("built"), shared_stores=())
        )

    def aot(self, artifacts: Path) -> Form:
        # The user's store is a directory that does not exist: this form must not write anything.
        settings = replace(current(), store=artifacts.with_name("nowhere"), shared_stores=(artifacts,))
        return _form(attention.Attention(policy="aot", settings=settings))


def _form(operation: attention.Attention) -> Form:
    return Form(operation, lambda: [str(resolution) for resolution in operation.resolutions()])
