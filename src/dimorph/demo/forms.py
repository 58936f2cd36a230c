"""The two forms of the attention that the demo compares, and the one place that gets them from Dimorph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dimorph.demo.minilm import Attention


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

    The only function of the demo that calls Dimorph. `jit` is policy "jit", a specialized module for head
    dimension 32, in a store that starts empty; `build` is what `dimorph build` does; `aot` is policy "aot", a
    dispatching module over what `build` left.
    """
    raise NotImplementedError("dimorph_forms: dimorph.attention is not there yet")
