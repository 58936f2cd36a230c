"""From a request to a loaded function, with the cache of all that were loaded."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dimorph as dm
from dimorph.attention.kernels import (
    CPU_HEAD_DIMS,
    GPU_FAMILIES,
    GPU_FLOAT8_HEAD_DIMS,
    GPU_HEAD_DIMS,
    attention_cpu,
    paged_cpu,
)
from dimorph.attention.request import Request


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
        recent: variant name -> the choice of the last call of that variant without pages. The next call on the same
            device may try it without a request: the function refuses another dtype or head dim with
            SpecializationMismatch before it does anything, and checks them faster than Python reads them from the
            arrays. None: it has refused a call, so
            every call of the variant makes a request.
        define_operator: registers the torch operators that stand for calls of these functions; None: there are none.
    """

    def __init__(self, policy: str | None, settings: dm.Settings | None, family: str | None) -> None:
        if family not in (None, *GPU_FAMILIES):
            known = " or ".join(repr(name) for name in sorted(GPU_FAMILIES))
            raise ValueError(f"Attention: argument 'family': expected {known}, got {family!r}")
        self._policy = policy
        self._settings = settings
        self._family = family
        self._modules: dict[tuple[Request, dm.Variant], dm.Module] = {}
        # The same by name, for the variant that had the name last: hashing a variant takes longer than a call.
        self._choices: dict[Request, Choice] = {}
        self.recent: dict[str, Choice | None] = {}
        self.define_operator: Callable[[], None] | None = None
        # One for each module, and re-entrant: a handler of signals or of log records may call attention while a
        # kernel is compiled.
        self._locks: dict[tuple[Request, dm.Variant], threading.RLock] = {}
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
        if not request.paged and self.recent.get(request.variant, choice) is not None:
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
        with self._locks.setdefault((request, variant), threading.RLock()):
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
        if request.batch_invariant:
            values["batch_invariant"] = True
        if request.gpu is None:
            try:
                kernel = paged_cpu if request.paged else attention_cpu
                return kernel.load(**values, few_queries=request.few_queries, kv_dtype=request.kv_dtype)
            except dm.DeclarationError as error:
                raise refusal(request, error) from error
        kernels = gpu_kernels([self._family] if self._family else families(request.gpu), request)
        if request.kv_dtype != "as_q":
            values |= {"kv_dtype": request.kv_dtype, "few_rows": request.few_queries}

        def load(kernel: dm.Kernel) -> dm.Module:
            names = [axis.name for axis in kernel.axes if axis.name in ("few_queries", "in_pages")]
            return kernel.load(**values, **{name: getattr(request, name) for name in names})

        try:
            return load(kernels[0])
        except (dm.MissingSpecialization, dm.DeclarationError) as error:
            # Nothing may be compiled, or not for this architecture; another family for the GPU may have been built.
            for kernel in kernels[1:]:
                with suppress(dm.MissingSpecialization, dm.DeclarationError):
                    return load(kernel)
            if isinstance(error, dm.DeclarationError):
                raise refusal(request, error) from error
            raise


def refusal(request: Request, error: dm.DeclarationError) -> Exception:
    """Return the exception for a request that no kernel is declared for, in terms of the arguments of `attention`."""
    head_dims = CPU_HEAD_DIMS if request.gpu is None else GPU_HEAD_DIMS
    if request.gpu is not None and request.kv_dtype != "as_q":
        head_dims = GPU_FLOAT8_HEAD_DIMS
    for name, size in (("q", request.head_dim_qk), ("v", request.head_dim_vo)):
        if not head_dims.fit((size,)):
            other, beside = ("v", request.head_dim_vo) if name == "q" else ("q", request.head_dim_qk)
            elsewhere = request.gpu is not None and CPU_HEAD_DIMS.fit((size, beside))
            return ValueError(
                f"attention: argument '{name}': expected {head_dims}, got {size}, beside {beside} of '{other}'"
                + (f"; there are kernels for {CPU_HEAD_DIMS}" if elsewhere else "")
            )
    if "axis dtype" in str(error):
        dtypes = "bfloat16 or float16" if request.gpu is not None else "float32, bfloat16 or float16"
        wide = ", but logits and sums are float32: convert it" if str(request.dtype).endswith("float64") else ""
        return TypeError(f"attention: argument 'q': expected dtype {dtypes}, got {request.dtype}{wide}")
    return error


def families(gpu: int) -> list[str]:
    """Return the families of kernels that a GPU runs, given by its ordinal, the best first.

    Raises:
        ValueError: there is no NVIDIA GPU, so q lies on another one.
    """
    gpus = dm.gpus()
    if not gpus:
        raise ValueError("attention: argument 'q': expected an array on the CPU or on an NVIDIA GPU")
    capability = gpus[gpu] if gpu < len(gpus) else None
    return [name for name, family in GPU_FAMILIES.items() if family.capability in (None, capability)]


def gpu_kernels(names: list[str], request: Request) -> list[dm.Kernel]:
    """Return the kernels of families, by their names.

    Raises:
        ValueError: no family takes keys in pages, or in float8, but they are.
    """
    float8 = request.kv_dtype != "as_q"
    kernels = [
        family.float8 if float8 else family.paged if request.paged else family.kernel
        for family in map(GPU_FAMILIES.__getitem__, names)
    ]
    found = [kernel for kernel in kernels if kernel is not None]
    if not found and float8:
        raise ValueError(
            f"attention: argument 'k': expected keys of the dtype of 'q', as the family {names[0]!r} of kernels takes "
            f"no others, got {request.kv_dtype}"
        )
    if not found:
        raise ValueError(
            "attention: argument 'k': expected keys that do not lie in pages, of sequences without lengths apart from "
            f"offsets, as the family {names[0]!r} of kernels takes no others"
        )
    return found


_all: weakref.WeakSet[Functions] = weakref.WeakSet()


def _renew_locks() -> None:
    # A thread that was compiling when the process forked held its lock, and does not exist in the child.
    for functions in _all:
        functions._locks = {}


os.register_at_fork(after_in_child=_renew_locks)
