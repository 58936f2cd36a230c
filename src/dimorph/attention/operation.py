"""The operations: arguments in, output out."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from sys import modules
from typing import Any

import dimorph as dm
from dimorph import SpecializationMismatch
from dimorph.attention.kernels import attention_cpu, attention_sm80, attention_sm90
from dimorph.attention.variants import Plain
from dimorph.attention.variants.sizes import check_sizes

_BoundVariant, _Variant = dm.BoundVariant, dm.Variant
# A variant, a place (see `Attention._find`), the function that serves there, and the default scale.
_Found = tuple[dm.Variant, int, Any, float]
_DLPACK_CUDA = 2
GPU_FAMILIES = {"sm80": attention_sm80, "sm90": attention_sm90}
_MOST_MULTIPROCESSORS = 160
_MANY_QUERIES, _FEW_QUERIES = -1, -2  # places on the CPU


_made: weakref.WeakSet[Attention] = weakref.WeakSet()


class Attention:
    """Attention, with the functions that were loaded for it so far. `attention` calls the one that everybody shares.

    Args:
        policy, settings: as for `dimorph.Kernel.load`.
        family: which kernels a GPU runs: "sm80" (8.0 and everything later) or "sm90" (9.0 alone). Default: the best for
            each GPU, of which there is something where nothing may be compiled.
    """

    def __init__(
        self, *, policy: str | None = None, settings: dm.Settings | None = None, family: str | None = None
    ) -> None:
        if family not in (None, *GPU_FAMILIES):
            raise ValueError(f"Attention: argument 'family': expected 'sm80' or 'sm90', got {family!r}")
        self._policy = policy
        self._settings = settings
        self._family = family
        self._modules: dict[tuple[object, ...], dm.Module] = {}
        # The same by name: hashing a variant takes longer than a call. Holds the variant that had the name last.
        self._functions: dict[tuple[object, ...], _Found] = {}
        # What a GPU ran last for a variant, by its name: tried first, because the function itself finds out whether it
        # is for a dtype and head dims, in less time than Python takes to ask for them.
        self._last: dict[str, _Found] = {}
        self._mixed: set[str] = set()  # where that was wrong once
        self._lock = threading.Lock()
        _made.add(self)

    def __call__(  # noqa: PLR0912, PLR0915 (every call's path, in one piece)
        self,
        q: Any,
        k: Any,
        v: Any,
        *,
        variant: dm.Variant | dm.BoundVariant = Plain,
        scale: float | None = None,
        cu_seqlens_q: Any = None,
        cu_seqlens_k: Any = None,
        out: Any = None,
        max_seqlen_q: int | None = None,
        max_seqlen_k: int | None = None,
        return_lse: bool = False,
        lse: Any = None,
        workspace: Any = None,
        stream: Any = None,
    ) -> Any:
        """softmax(scale q k^T) v, or what a variant makes of it.

        Any array that speaks DLPack serves (NumPy, torch, CuPy, ...), on the CPU or on an NVIDIA GPU of 8.0 or later,
        without a copy. Strides are free as long as the last dimension is contiguous; on a GPU they are multiples of 16
        bytes, as addresses are, and not negative, and rows of k and v lie less than 32 MiB apart. Logits and sums are
        float32 whatever the dtype. A GPU call runs on the caller's current stream and waits for nothing.

        Args:
            q: [batch, queries, heads, head_dim_qk], or ragged: [tokens, heads, head_dim_qk]. float32 (on the
                CPU), bfloat16 or float16; head dims are multiples of 16 up to 256.
            k: [batch, keys, kv_heads, head_dim_qk], or [key tokens, kv_heads, head_dim_qk]. heads is a multiple of
                kv_heads; query head h uses key head h // (heads // kv_heads).
            v: as k, with head_dim_vo.
            variant: what is computed: `Plain`, `Causal`, `FlashSigmoid(scale=..., bias=...)`, or one of your own.
                Masks are aligned bottom-right: the last query sees the last key.
            scale: factor of the logits; default 1/sqrt(head_dim_qk). Variants without softmax scale by themselves.
            cu_seqlens_q: ragged: int32 [batch + 1], where each sequence's queries start and the last ends, from 0.
            cu_seqlens_k: the same for keys.
            max_seqlen_q, max_seqlen_k: ragged on a GPU, where offsets are not read before the launch: the longest of
                those sequences, or more. Default: all tokens, which is right, but starts blocks that find no work.
            out: [batch, queries, heads, head_dim_vo] (or ragged) to write to, which must not overlap what is read;
                default: a new array of q's kind.
            return_lse: return also the natural log-sum-exp of the logits, float32 [batch, queries, heads]; NaN for a
                variant without softmax.
            lse: an array to write that to.
            workspace: on a GPU, a float32 array of `workspace_size(...)` elements for the parts of few queries, whose
                keys are split among blocks; default: a new one of q's kind. With `out` and this one nothing is
                allocated.
            stream: on a GPU, another stream to run on: a raw handle, or a stream of torch, CuPy or cuda-python. Give
                `out` then (and `lse`), and `workspace` where keys are to be split: what is made here is made for the
                current stream.

        Returns:
            out, or (out, lse). A query that sees no key has output 0 and lse -inf.

        Raises:
            TypeError, ValueError: an argument does not fit; names it, with what was expected and what came.
            RuntimeError: a tensor requires grad and grad mode is on: there is no backward pass.
            dimorph.MissingSpecialization, dimorph.BuildError: there is no kernel for these values.
        """
        # On the path of every call, so it asks for as little as possible, and once.
        args: tuple[Any, ...] = ()
        if isinstance(variant, _BoundVariant):
            args = variant.args
            variant = variant.variant
        elif not isinstance(variant, _Variant):
            raise TypeError(f"attention: argument 'variant': expected a dimorph.Variant, got {variant!r}")
        elif variant.params:
            args = variant().args
        torch = modules.get("torch")
        if torch is not None:
            if self is _shared and torch.compiler.is_compiling() and hasattr(q, "requires_grad"):
                from dimorph.attention.torch import traced

                if stream is not None:
                    raise ValueError("attention: argument 'stream': expected none in what is traced, which has its own")
                offsets = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
                return traced(q, k, v, variant, args, scale, offsets, out, return_lse, lse)
            if torch.is_grad_enabled() and hasattr(q, "requires_grad"):
                check_no_grad(q, k, v, variant, args)
        if cu_seqlens_q is not None and not hasattr(cu_seqlens_q, "shape"):
            raise TypeError(f"attention: argument 'cu_seqlens_q': expected an int32 array, got {cu_seqlens_q!r}")
        if variant.sized:
            check_sizes(variant, args, q, k, cu_seqlens_q)
        try:
            gpu: int = q.get_device()  # torch's; below 0: none
        except AttributeError:
            gpu = _ordinal(q)
        name = variant.name
        if gpu >= 0:
            found = self._last.get(name)
            if found is None or found[0] is not variant or found[1] != gpu:
                found = self._find(q, *_shapes(q, v), variant, gpu)
        else:
            shape, dim_vo = _shapes(q, v)
            few = few_queries(shape, None if cu_seqlens_q is None else cu_seqlens_q.shape[0] - 1)
            found = self._find(q, shape, dim_vo, variant, _FEW_QUERIES if few else _MANY_QUERIES)
        if stream is not None:
            _check_stream(gpu, out, return_lse, lse)
        if out is None or (workspace is None and gpu >= 0 and stream is None):
            shape, dim_vo = _shapes(q, v)
            if out is None:
                out = _empty(q, (*shape[:-1], dim_vo), None)
            if workspace is None and gpu >= 0 and (size := workspace_size(shape, dim_vo)):
                workspace = _empty(q, (size,), "float32")
        if lse is None and return_lse:
            lse = _empty(q, tuple(q.shape[:-1]), "float32")
        if gpu < 0:
            factor = found[3] if scale is None else scale
            found[2](q, k, v, out, factor, name, lse, cu_seqlens_q, cu_seqlens_k, *args)
            return (out, lse) if return_lse else out
        native = stream is None and "cupy" not in modules
        while True:
            _, _, function, factor = found
            if scale is not None:
                factor = scale
            if native:
                function = function.native
            elif stream is not None:
                function = partial(function, stream=stream)
            try:
                if args or cu_seqlens_q is not None or cu_seqlens_k is not None:
                    offsets = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
                    function(q, k, v, out, factor, name, lse, workspace, *offsets, *args)
                else:
                    function(q, k, v, out, factor, name, lse, workspace)
            except BufferError:
                if not native:
                    raise
                native = False
            except SpecializationMismatch:
                self._mixed.add(name)
                exact = self._find(q, *_shapes(q, v), variant, gpu)
                if exact is found:
                    raise
                found = exact
            else:
                return (out, lse) if return_lse else out

    def resolutions(self) -> list[dm.Resolution]:
        """Which artifacts serve so far, and why."""
        return [line for module in self._modules.values() for line in module.resolutions]

    def _find(self, q: Any, shape: Sequence[int], dim_vo: int, variant: dm.Variant, place: int) -> _Found:
        """What serves such arrays at a place: on a GPU, by its ordinal, or on the CPU, for many queries or few."""
        dim = shape[-1]
        key = (q.dtype, dim, dim_vo, place, variant.name)
        found = self._functions.get(key)
        if found is None or found[0] is not variant:
            if place >= 0 and _ordinal(q) < 0:
                raise ValueError("attention: argument 'q': expected an array on the CPU or on an NVIDIA GPU")
            kind = (self._family or best_family(q)) if place >= 0 else place == _FEW_QUERIES
            function = self._load(q.dtype, dim, dim_vo, kind, variant).attention
            found = self._functions[key] = (variant, place, function, dim**-0.5)
        if place >= 0:
            if variant.name in self._mixed:
                self._last.pop(variant.name, None)
            else:
                self._last[variant.name] = found
        return found

    def _load(
        self, dtype: object, head_dim_qk: int, head_dim_vo: int, kind: str | bool, variant: dm.Variant
    ) -> dm.Module:
        key = (dtype, head_dim_qk, head_dim_vo, kind, variant)
        values: dict[str, Any] = {"dtype": dtype, "head_dims": (head_dim_qk, head_dim_vo), "variant": variant}
        with self._lock:
            module = self._modules.get(key)
            if module is None:
                module = self._modules[key] = self._load_kind(kind, values)
        return module

    def _load_kind(self, kind: str | bool, values: dict[str, Any]) -> dm.Module:
        options: dict[str, Any] = {"policy": self._policy, "settings": self._settings}
        if isinstance(kind, bool):
            return attention_cpu.load(**options, **values, few_queries=kind)
        try:
            return GPU_FAMILIES[kind].load(**options, **values)
        except (dm.MissingSpecialization, dm.DeclarationError) as error:
            # Nothing may be compiled, or nothing for this GPU's own architecture: the family of all GPUs may be there.
            if self._family or kind == "sm80":
                raise
            try:
                return attention_sm80.load(**options, **values)
            except (dm.MissingSpecialization, dm.DeclarationError):
                raise error from None


def _forget_locks() -> None:
    # Another thread may have held one when the process forked, while it compiled; it does not exist here.
    for attend in _made:
        attend._lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_locks)
_shared = Attention()
# The method, because a call of an object takes up to half a microsecond more.
attention = _shared.__call__


def few_queries(shape: Sequence[int], batch: int | None) -> bool:
    """Whether queries of that shape, ragged if `batch` is given, are too few for blocks of them to be filled."""
    return shape[1] <= 32 if batch is None else shape[0] <= 32 * batch


def workspace_size(shape: Sequence[int], head_dim_vo: int) -> int:
    """How many float32 elements a call on a GPU can use for queries of that shape; 0: none.

    Keys are split where a GPU has room for more blocks of 128 rows than there are, two for each multiprocessor: at most
    as many rows as are there at a time, a row's output with its maximum and sum.
    """
    room = 2 * _MOST_MULTIPROCESSORS * 128
    return room * (head_dim_vo + 2) if 2 * math.prod(shape[:-1]) <= room else 0


def check_no_grad(q: Any, k: Any, v: Any, variant: dm.Variant, args: Sequence[Any]) -> None:
    """Refuses torch tensors that require grad: the result would be silently cut off from them."""
    for index, array in enumerate((q, k, v, *args)):
        if getattr(array, "requires_grad", False):
            name = ("q", "k", "v", *(param.name for param in variant.params))[index]
            raise RuntimeError(
                f"attention: argument '{name}': expected a tensor that requires no grad, as there is no backward "
                f"pass, got one that does; call under torch.no_grad(), or detach it"
            )


def _shapes(q: Any, v: Any) -> tuple[Sequence[int], int]:
    """The shape of the queries, and head_dim_vo."""
    shape: Sequence[int] = getattr(q, "shape", ())
    shape_v: Sequence[int] = getattr(v, "shape", ())
    if 3 <= len(shape) <= 4 and 3 <= len(shape_v) <= 4:
        return shape, shape_v[-1]
    name, array = ("v", v) if 3 <= len(shape) <= 4 else ("q", q)
    raise ValueError(
        f"attention: argument '{name}': expected an array [batch, seq, heads, head_dim] or [tokens, heads, head_dim], "
        f"got {_describe(array)}"
    )


def _check_stream(gpu: int, out: Any, return_lse: bool, lse: Any) -> None:
    if gpu < 0:
        raise ValueError("attention: argument 'stream': expected none, as 'q' is not on a GPU")
    if out is None or (return_lse and lse is None):
        name = "out" if out is None else "lse"
        raise ValueError(f"attention: argument '{name}': expected an array to write to, as 'stream' is given")


def _ordinal(array: Any) -> int:
    """Which GPU an array lies on; below 0: none."""
    if hasattr(array, "is_cuda"):
        return int(array.get_device()) if array.is_cuda else -1
    kind, ordinal = array.__dlpack_device__() if hasattr(array, "__dlpack_device__") else (0, 0)
    return int(ordinal) if kind == _DLPACK_CUDA else -1


def best_family(array: Any) -> str:
    """The family of kernels for the GPU that an array lies on."""
    gpus, gpu = dm.gpus(), _ordinal(array)
    return "sm90" if gpu < len(gpus) and gpus[gpu] == (9, 0) else "sm80"


def _empty(like: Any, shape: tuple[int, ...], dtype: str | None) -> Any:
    """A new array of the same library and device, not filled."""
    if hasattr(like, "new_empty"):  # torch
        import torch

        return like.new_empty(shape, dtype=getattr(torch, dtype) if dtype else None)
    cupy = modules.get("cupy")
    if cupy is not None and isinstance(like, cupy.ndarray):
        with like.device:
            return cupy.empty(shape, dtype or like.dtype)
    namespace = like.__array_namespace__() if hasattr(like, "__array_namespace__") else None
    if namespace is None:
        raise TypeError(f"attention: argument 'out': give one, because no {_describe(like)} can be made here")
    return namespace.empty(shape, dtype=dtype or like.dtype, device=like.device)


def _describe(array: object) -> str:
    shape = getattr(array, "shape", None)
    return f"{type(array).__name__} of shape {tuple(shape)}" if shape is not None else type(array).__name__
