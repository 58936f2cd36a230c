"""The choice of a function for a request, and the cache of those that were loaded."""

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
    """A loaded function, and the request that it was loaded for.

    Attributes:
        request: the request.
        variant, gpu, few_queries: of the request; they are compared at every call.
        scale: the default factor of the logits.
        module: the kernel.
        function: its entry.
    """

    __slots__ = ("few_queries", "function", "gpu", "module", "request", "scale", "variant")

    def __init__(self, request: Request, module: dm.Module) -> None:
        self.request = request
        self.variant = request.variant
        self.gpu = request.gpu
        self.few_queries = request.few_queries
        self.scale: float = request.head_dim_qk**-0.5
        self.module = module
        self.function: Any = module.attention


class Functions:
    """The functions that were loaded so far, by request.

    Args:
        policy, settings, family: see `Attention`.
    """

    def __init__(self, policy: str | None, settings: dm.Settings | None, family: str | None) -> None:
        if family not in (None, *GPU_FAMILIES):
            raise ValueError(f"Attention: argument 'family': expected 'sm80' or 'sm90', got {family!r}")
        self._policy = policy
        self._settings = settings
        self._family = family
        self._choices: dict[Request, Choice] = {}
        # What the last call of a variant used, by the variant's name. None: it did not fit the next call once.
        self._recent: dict[str, Choice | None] = {}
        self._lock = threading.Lock()
        _all.add(self)

    def recent(self, q: Any, variant: dm.Variant, gpu: int | None, few_queries: bool) -> Choice | None:
        """Return what the last such call used, if it may serve this one.

        It serves the same dtype and head dims, and refuses others with SpecializationMismatch before it does anything,
        in less time than Python takes to ask for them.
        """
        choice = self._recent.get(variant.name)
        if choice is None or choice.variant is not variant or choice.gpu != gpu:
            return None
        # On the CPU a call is short enough for two more questions: first calls and later ones get the same errors.
        if gpu is None and (choice.few_queries != few_queries or choice.request.dtype != q.dtype):
            return None
        return choice

    def find(self, request: Request) -> Choice:
        """Return the function for a request, loaded if need be."""
        choice = self._choices.get(request)
        if choice is None:
            with self._lock:
                choice = self._choices.get(request)
                if choice is None:
                    choice = self._choices[request] = Choice(request, self._load(request))
        name = request.variant.name
        if self._recent.get(name, choice) is not None:
            self._recent[name] = choice
        return choice

    def refused(self, choice: Choice) -> None:
        """Note that a recent function did not fit a call: from then on, calls of its variant are looked up exactly."""
        self._recent[choice.variant.name] = None

    def resolutions(self) -> list[dm.Resolution]:
        """Return which artifacts serve so far, and why."""
        return [line for choice in self._choices.values() for line in choice.module.resolutions]

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
            # Nothing may be compiled, or nothing for this GPU's own architecture: the family of all GPUs may be there.
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
    # Another thread may have held one when the process forked, while it compiled; it does not exist in the child.
    for functions in _all:
        functions._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)
