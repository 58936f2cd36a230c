"""The operations: arguments in, output out."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import dimorph as dm
from dimorph.attention.kernels import attention_cpu
from dimorph.attention.variants import Plain


class Attention:
    """Attention, with the functions that were loaded for it so far. `attention` is the one that everybody shares.

    Args:
        policy, settings: as for `dimorph.Kernel.load`.
    """

    def __init__(self, *, policy: str | None = None, settings: dm.Settings | None = None) -> None:
        self._policy = policy
        self._settings = settings
        self._modules: dict[tuple[object, ...], dm.Module] = {}
        self._lock = threading.Lock()

    def __call__(
        self,
        q: Any,
        k: Any,
        v: Any,
        *,
        variant: dm.Variant | dm.Bound = Plain,
        scale: float | None = None,
        cu_seqlens_q: Any = None,
        cu_seqlens_k: Any = None,
        out: Any = None,
        return_lse: bool = False,
        lse: Any = None,
    ) -> Any:
        """softmax(scale q k^T) v, or what a variant makes of it.

        Any array that speaks DLPack serves (NumPy, torch, ...), on the CPU, without a copy. Strides are free as long
        as the last dimension is contiguous.

        Args:
            q: [batch, queries, heads, head_dim_qk], or ragged: [tokens, heads, head_dim_qk]. float32; head dims are
                multiples of 16 up to 256.
            k: [batch, keys, kv_heads, head_dim_qk], or [key tokens, kv_heads, head_dim_qk]. heads is a multiple of
                kv_heads; query head h uses key head h // (heads // kv_heads).
            v: as k, with head_dim_vo.
            variant: what is computed: `Plain`, `Causal`, `FlashSigmoid(scale=..., bias=...)`, or one of your own.
                Masks are aligned bottom-right: the last query sees the last key.
            scale: factor of the logits; default 1/sqrt(head_dim_qk). Variants without softmax scale by themselves.
            cu_seqlens_q: ragged: int32 [batch + 1], where each sequence's queries start and the last ends, from 0.
            cu_seqlens_k: the same for keys.
            out: [batch, queries, heads, head_dim_vo] (or ragged) to write to; default: a new array of q's kind.
            return_lse: return also the natural log-sum-exp of the logits, float32 [batch, queries, heads]; NaN for a
                variant without softmax.
            lse: an array to write that to.

        Returns:
            out, or (out, lse). A query that sees no key has output 0 and lse -inf.

        Raises:
            TypeError, ValueError: an argument does not fit; names it, with what was expected and what came.
            dimorph.MissingSpecialization, dimorph.BuildError: there is no kernel for these values.
        """
        function, bound = self._function(q, v, variant)
        if out is None:
            out = _empty(q, (*q.shape[:-1], v.shape[-1]), None)
        if lse is None and return_lse:
            lse = _empty(q, tuple(q.shape[:-1]), "float32")
        factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
        function(q, k, v, out, lse, cu_seqlens_q, cu_seqlens_k, factor, bound.variant.name, *bound.args)
        return (out, lse) if return_lse else out

    def resolutions(self) -> list[dm.Resolution]:
        """Which artifacts serve so far, and why."""
        return [line for module in self._modules.values() for line in module.resolutions]

    def _function(self, q: Any, v: Any, variant: dm.Variant | dm.Bound) -> tuple[Callable[..., Any], dm.Bound]:
        for name, array in (("q", q), ("v", v)):
            if len(getattr(array, "shape", ())) not in (3, 4):
                raise ValueError(
                    f"attention: argument '{name}': expected an array [batch, seq, heads, head_dim] or "
                    f"[tokens, heads, head_dim], got {_describe(array)}"
                )
        bound = variant if isinstance(variant, dm.Bound) else variant()
        key = (q.dtype, q.shape[-1], v.shape[-1], bound.variant)
        module = self._modules.get(key)
        if module is None:
            with self._lock:
                module = self._modules.get(key) or attention_cpu.load(
                    policy=self._policy,
                    settings=self._settings,
                    dtype=q.dtype,
                    head_dims=(q.shape[-1], v.shape[-1]),
                    variant=bound.variant,
                )
                self._modules[key] = module
        return module.attention, bound


attention = Attention()


def _empty(like: Any, shape: tuple[int, ...], dtype: str | None) -> Any:
    """A new array of the same library and device, not filled."""
    if hasattr(like, "new_empty"):  # torch
        import torch

        return like.new_empty(shape, dtype=getattr(torch, dtype) if dtype else None)
    namespace = like.__array_namespace__() if hasattr(like, "__array_namespace__") else None
    if namespace is None:
        raise TypeError(f"attention: argument 'out': give one, because no {_describe(like)} can be made here")
    return namespace.empty(shape, dtype=dtype or like.dtype, device=like.device)


def _describe(array: object) -> str:
    shape = getattr(array, "shape", None)
    return f"{type(array).__name__} of shape {tuple(shape)}" if shape is not None else type(array).__name__
