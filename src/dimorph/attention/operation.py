"""The operation: `attention`, and `Attention` for settings of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import dimorph as dm
from dimorph import SpecializationMismatch
from dimorph.attention.arrays import Library, libraries
from dimorph.attention.request import check_stream, few_queries, request_of, shape_of, validate
from dimorph.attention.select import Choice, Functions
from dimorph.attention.variants import Plain

_DENSE = None, None, None, None
_MOST_MULTIPROCESSORS = 160
_KEYS_OF_A_PART, _MOST_PARTS = 128, 64


class Attention:
    """Attention, with the functions that were loaded for it so far. `attention` calls the one that everybody shares.

    Args:
        policy, settings: as for `dimorph.Kernel.load`.
        family: which kernels a GPU runs: "sm80" (8.0 and everything later) or "sm90" (9.0 alone). Default: the best
            family for the GPU; where nothing may be compiled, the best one that was built.
    """

    def __init__(
        self, *, policy: str | None = None, settings: dm.Settings | None = None, family: str | None = None
    ) -> None:
        self._functions = Functions(policy, settings, family)

    def __call__(
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
        library = libraries[type(q)]
        if self is _shared and library.is_traced():
            _define_operator()
            from dimorph.attention.torch_operator import traced

            lengths = cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k
            return traced(q, k, v, variant, scale, lengths, out, return_lse, lse, stream)

        # Validate what the kernel's entry does not.
        variant, args = validate(library, q, k, v, variant, cu_seqlens_q)
        gpu = library.gpu(q)
        if stream is not None:
            check_stream(gpu, out, return_lse, lse)

        # Choose.
        few = gpu is None and few_queries(q, cu_seqlens_q)
        recent = self._functions.recent(q, variant, gpu, few)
        choice = recent or self._functions.find(request_of(variant, q, v, gpu, few))

        # Allocate.
        if workspace is None and gpu is not None and stream is None:
            workspace = _new_workspace(library, q, k, v, cu_seqlens_k, max_seqlen_k)
        if out is None:
            out = library.empty_rows(q, shape_of(v, "v")[-1])
        if lse is None and return_lse:
            lse = library.empty_float32(q, *q.shape[:-1])

        # Launch.
        ragged = cu_seqlens_q is not None or cu_seqlens_k is not None
        lengths = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k) if ragged else _DENSE
        native = library.native and stream is None
        try:
            _launch(choice, q, k, v, out, scale, lse, workspace, lengths, args, native, stream)
        except SpecializationMismatch:
            if recent is None:
                raise
            self._functions.refused(recent)
            choice = self._functions.find(request_of(variant, q, v, gpu, few))
            if choice is recent:
                raise
            _launch(choice, q, k, v, out, scale, lse, workspace, lengths, args, native, stream)
        return (out, lse) if return_lse else out

    def resolutions(self) -> list[dm.Resolution]:
        """Return which artifacts serve so far, and why."""
        return self._functions.resolutions()


_shared = Attention()
# The method, because a call of an object takes up to half a microsecond more.
attention = _shared.__call__


def workspace_size(shape: Sequence[int], head_dim_vo: int, keys: int | None = None) -> int:
    """How many float32 elements a call on a GPU can use for queries of that shape; 0: none.

    Keys are split where a GPU has room for more blocks of 128 rows than there are, two for each multiprocessor: at most
    as many rows as are there at a time, a row's output with its maximum and sum.
    """
    rows = math.prod(shape[:-1])
    room = 2 * _MOST_MULTIPROCESSORS * 128
    if 2 * rows > room:
        return 0
    if keys is not None:
        parts = min(keys // _KEYS_OF_A_PART, _MOST_PARTS)
        room = min(room, rows * parts) if parts > 1 else 0
    return room * (head_dim_vo + 2)


def _new_workspace(library: Library, q: Any, k: Any, v: Any, cu_seqlens_k: Any, max_seqlen_k: int | None) -> Any:
    """Make the workspace with which a GPU can split the keys of a call; None: it would not split them."""
    shape_k = shape_of(k, "k")
    keys = shape_k[-3] if cu_seqlens_k is None or max_seqlen_k is None else max_seqlen_k
    if keys < 2 * _KEYS_OF_A_PART:
        return None
    size = workspace_size(shape_of(q, "q"), shape_of(v, "v")[-1], keys)
    return library.empty_float32(q, size) if size else None


def _launch(
    choice: Choice,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    scale: float | None,
    lse: Any,
    workspace: Any,
    lengths: tuple[Any, Any, int | None, int | None],
    args: tuple[Any, ...],
    native: bool,
    stream: Any,
) -> None:
    """Call the chosen function, which launches its kernels, or on the CPU computes."""
    function, name = choice.function, choice.variant.name
    if scale is None:
        scale = choice.scale
    if choice.gpu is None:
        function(q, k, v, out, scale, name, lse, *lengths[:2], *args)
    elif not native:
        function(q, k, v, out, scale, name, lse, workspace, *lengths, *args, stream=stream)
    else:
        try:
            if lengths is _DENSE and not args:
                function.native(q, k, v, out, scale, name, lse, workspace)
            else:
                function.native(q, k, v, out, scale, name, lse, workspace, *lengths, *args)
        except BufferError:
            function(q, k, v, out, scale, name, lse, workspace, *lengths, *args)


def _define_operator() -> None:
    from dimorph.attention.torch_operator import define

    define(attention)


# What torch.compiler.assume_constant_result does, without torch: while a caller is traced, this runs as it is.
_define_operator._dynamo_marked_constant = True  # type: ignore[attr-defined]
