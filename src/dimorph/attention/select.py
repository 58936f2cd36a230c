"""From a request to a loaded function, with the cache of all that were loaded."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import dimorph as dm
from dimorph.attention.kernels import attention_cpu, attention_sm80, attention_sm90
from dimorph.attention.request import Request

GPU_FAMILIES = {"sm80": attention_sm80, "sm90": attention_sm90}


class Choice:
    """A loaded kernel and the request that it was loaded for.

    Attributes:
        request: the request.
        variant, dtype, gpu, few_queries: the request's, which every call compares with its own.
        scale: the default factor of the logits.
        module: the kernel.
        function: the kernel's entry.
    """

    __slots__ = ("dtype", "few_queries", "function", "gpu", "module", "request", "scale", "variant")

    def __init__(self, request: Request, module: dm.Module) -> None:
        self.request = request
        self.variant = request.variant
        self.dtype = request.dtype
        self.gpu = request.gpu
        self.few_queries = request.few_queries
        self.scale: float = request.head_dim_qk**-0.5
        self.module = module
        self.function: Any = module.attention


class Functions:
    """The functions that were loaded so far, by request.

    Args:
        policy, settings, family: see `Attention`.

    Attributes:
        recent: variant name -> the choice of the last call of that variant. The next call on the same device may try it
            without a request: the function refuses another dtype or head dim with SpecializationMismatch before it does
            anything, and checks them faster than Python reads them from the arrays. None: it has refused a call, so
            every call of the variant makes a request.
    """

    def __init__(self, policy: str | None, settings: dm.Settings | None, family: str | None) -> None:
        if family not in (None, *GPU_FAMILIES):
            raise ValueError(f"Attention: argument 'family': expected 'sm80' or 'sm90', got {family!r}")
        self._policy = policy
        self._settings = settings
        self._family = family
        self._choices: dict[Request, Choice] = {}
        self.recent: dict[str, Choice | None] = {}
        self._lock = threading.Lock()
        _all.add(self)

    def find(self, request: Request) -> Choice:
        """Return the function for a request, and load it if need be."""
        choice = self._choices.get(request)
        if choice is None:
            with self._lock:
                choice = self._choices.get(request)
                if choice is None:
                    choice = self._choices[request] = Choice(request, self._load(request))
        if choice.variant is not request.variant:  # an equal one; calls compare by identity
            choice = self._choices[request] = Choice(request, choice.module)
        name = request.variant.name
        if self.recent.get(name, choice) is not None:
            self.recent[name] = choice
        return choice

    def find_instead(self, refused: Choice, request: Request) -> Choice:
        """Return the function for a request that a recent choice has refused; from now on, do not try recent ones."""
        self.recent[refused.variant.name] = None
        return self.find(request)

    def resolutions(self) -> list[dm.Resolution]:
        """Return the artifacts that serve so far, each with the reason why it was taken."""
        return [line for choice in list(self._choices.values()) for line in choice.module.resolutions]

    def _load(self, request: Request) -> dm.Module:
        values: dict[str, Any] = {
            "policy": self._policy,
            "settings": self._settings,
            "dtype": request.dtype,
            "head_dims": (request.head_dim_qk, request.head_dim_vo),
            "variant": request.variant,
        }
        if request.gpu is None:
            return attention_cpu.load(**values, few_queries=request.few_queries)
        family = self._family or best_family(request.gpu)
        try:
            return GPU_FAMILIES[family].load(**values)
        except (dm.MissingSpecialization, dm.DeclarationError) as error:
            # Nothing may be compiled, or not for this architecture; the family for all GPUs may have been built.
            if self._family or family == "sm80":
                raise
            try:
                return attention_sm80.load(**values)
            except (dm.MissingSpecialization, dm.DeclarationError):
                raise error from None


def best_family(gpu: int) -> str:
    """Return the family of kernels for a GPU, given by its ordinal."""
    gpus = dm.gpus()
    return "sm90" if gpu < len(gpus) and gpus[gpu] == (9, 0) else "sm80"


_all: weakref.WeakSet[Functions] = weakref.WeakSet()


def _renew_locks() -> None:
    # A thread that was compiling when the process forked held its lock, and does not exist in the child.
    for functions in _all:
        functions._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)
