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
        variant: the variant that has the request's name.
        dtype, gpu, few_queries: the request's, which every call compares with its own.
        scale: the default factor of the logits.
        module: the kernel.
        function: the kernel's entry.
    """

    __slots__ = ("dtype", "few_queries", "function", "gpu", "module", "request", "scale", "variant")

    def __init__(self, request: Request, variant: dm.Variant, module: dm.Module) -> None:
        self.request = request
        self.variant = variant
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
        self._modules: dict[tuple[Request, dm.Variant], dm.Module] = {}
        # The same by name, for the variant that had the name last: hashing a variant takes longer than a call.
        self._choices: dict[Request, Choice] = {}
        self.recent: dict[str, Choice | None] = {}
        self._lock = threading.Lock()
        _all.add(self)

    def find(self, request: Request, variant: dm.Variant) -> Choice:
        """Return the function for a request and the variant that it names, and load it if need be.

        Raises:
            ValueError: q does not lie on a GPU of NVIDIA's.
            dimorph.MissingSpecialization, dimorph.BuildError: there is no such kernel.
        """
        choice = self._choices.get(request)
        if choice is None or choice.variant is not variant:
            choice = self._choices[request] = Choice(request, variant, self._module(request, variant))
        if self.recent.get(request.variant, choice) is not None:
            self.recent[request.variant] = choice
        return choice

    def find_instead(self, request: Request, variant: dm.Variant) -> Choice:
        """Return the function for a request that a recent choice has refused; from now on, do not try recent ones."""
        self.recent[request.variant] = None
        return self.find(request, variant)

    def resolutions(self) -> list[dm.Resolution]:
        """Return the artifacts that serve so far, each with the reason why it was taken."""
        return [line for module in list(self._modules.values()) for line in module.resolutions]

    def _module(self, request: Request, variant: dm.Variant) -> dm.Module:
        with self._lock:
            module = self._modules.get((request, variant))
            if module is None:
                module = self._modules[request, variant] = self._load(request, variant)
        return module

    def _load(self, request: Request, variant: dm.Variant) -> dm.Module:
        values: dict[str, Any] = {
            "policy": self._policy,
            "settings": self._settings,
            "dtype": request.dtype,
            "head_dims": (request.head_dim_qk, request.head_dim_vo),
            "variant": variant,
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
    """Return the family of kernels for a GPU, given by its ordinal.

    Raises:
        ValueError: there are no GPUs of NVIDIA's, so it is another one that q lies on.
    """
    gpus = dm.gpus()
    if not gpus:
        raise ValueError("attention: argument 'q': expected an array on the CPU or on an NVIDIA GPU")
    return "sm90" if gpu < len(gpus) and gpus[gpu] == (9, 0) else "sm80"


_all: weakref.WeakSet[Functions] = weakref.WeakSet()


def _renew_locks() -> None:
    # A thread that was compiling when the process forked held its lock, and does not exist in the child.
    for functions in _all:
        functions._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)
