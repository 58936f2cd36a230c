"""The operation `attention`, in four steps: validate, choose, allocate, launch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import dimorph as dm
from dimorph import SpecializationMismatch
from dimorph.attention import planning
from dimorph.attention.arrays import libraries
from dimorph.attention.cache import KVCache
from dimorph.attention.cached import attend, cache_of, is_dense
from dimorph.attention.host_lengths import on_device
from dimorph.attention.planning import Plan
from dimorph.attention.request import (
    CachedCall,
    Request,
    check_others,
    check_stream,
    few_queries,
    request_of,
    shape_of,
    truth,
    validate,
)
from dimorph.attention.select import Choice, Functions
from dimorph.attention.variants import Plain
from dimorph.attention.workspace import new_workspace

_BoundVariant = dm.BoundVariant
_DENSE = None, None, None, None  # cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k


class Attention:
    """The operation under a policy, settings or a family of its own; `attention` is one with the defaults.

    It keeps the functions that were loaded for it.

    Args:
        policy, settings: as for `dimorph.Kernel.load`.
        family: the family of kernels for GPUs, "sm80" (compute capability 8.0 and later) or "sm90" (9.0 only).
            Default: the best family for the GPU; under policy `aot`, the best one that was built.
    """

    def __init__(
        self, *, policy: str | None = None, settings: dm.Settings | None = None, family: str | None = None
    ) -> None:
        self._functions = Functions(policy, settings, family)
        self._recent = self._functions.recent
        self._made_of = policy, settings, family

    def __reduce__(self) -> str | tuple[Any, tuple[Any, ...]]:
        return "_shared" if self is _shared else (_attention, self._made_of)

    def __copy__(self) -> Attention:
        return self  # its only state is what it has loaded

    def __deepcopy__(self, memo: object) -> Attention:
        return self

    def __call__(  # noqa: PLR0912 (written out: see below what a call of a function costs)
        self,
        q: Any,
        k: Any,
        v: Any = None,
        *,
        variant: dm.Variant | dm.BoundVariant = Plain,
        scale: float | None = None,
        cu_seqlens_q: Any = None,
        cu_seqlens_k: Any = None,
        seqlens_q: Any = None,
        out: Any = None,
        max_seqlen_q: int | None = None,
        max_seqlen_k: int | None = None,
        return_lse: bool = False,
        lse: Any = None,
        workspace: Any = None,
        stream: Any = None,
        batch_invariant: bool = False,
    ) -> Any:
        """Compute softmax(scale q k^T) v, or a variant of it.

        Takes any arrays that speak DLPack (NumPy, torch, CuPy, JAX, ...), without copying them, on the CPU or on an
        NVIDIA GPU of compute capability 8.0 or later. The last dimension is contiguous; other strides are free. On a
        GPU, addresses and strides are multiples of 16 bytes, strides are not negative, and neighbouring rows of k and v
        lie less than 32 MiB apart. Logits and sums are float32, whatever the dtype of the arrays. A call on a GPU
        launches its kernels on the current stream of q's library and returns before they have run.

        Args:
            q: queries, [batch, queries, heads, head_dim_qk], or ragged [tokens, heads, head_dim_qk]; bfloat16, float16,
                or on the CPU float32; float64 is refused, as logits and sums are float32. Head dims are up to 1024 on
                the CPU, and multiples of 8 up to 256 on a GPU, where longer values are computed in parts: by calls with
                v[..., :256] and v[..., 256:], whose weights are the same.
            k: keys, [batch, keys, kv_heads, head_dim_qk] or [key tokens, kv_heads, head_dim_qk]. heads is a multiple of
                kv_heads; query head h uses key head h // (heads // kv_heads). Or a `KVCache`, in place of keys and
                values: then queries are dense or ragged, whichever the cache is.
            v: values, as k with head_dim_vo in place of head_dim_qk; none beside a `KVCache`.
            variant: a built-in variant such as `Plain`, `Causal` or `FlashSigmoid(scale=..., bias=...)`, a composition,
                or one of your own. Masks are aligned bottom-right: the last query sees the last key.
            scale: factor of the logits, from -1e30 to 1e30, or on a GPU, unless the variant transforms logits, from
                -2^20 to 2^20; default: 1/sqrt(head_dim_qk). Variants without softmax ignore it.
            cu_seqlens_q: for ragged arrays, int32 [batch + 1]: the first query token of each sequence, from 0, and the
                end of the last one. Rows of q behind it see no key; the rows of a given `out` and `lse` there are
                left as they are.
            cu_seqlens_k: the same for key tokens; none beside a `KVCache`, which has its own.
            seqlens_q: int32 [batch], how many queries of each sequence are in use, of the first ones in its room. Rows
                behind them are treated as those behind the last ragged sequence. Masks are aligned to the lengths in
                use, here and in a `KVCache`. Default: all.
            out: array to write to, [batch, queries, heads, head_dim_vo] or [tokens, heads, head_dim_vo], of q's dtype;
                it shares no memory with q, k and v, but may lie between their rows. Default: a new array of q's
                library.
            max_seqlen_q, max_seqlen_k: for ragged arrays, and a `KVCache` with `indptr`, on a GPU, which does not read
                the offsets before the launch: upper bounds of the lengths of sequences. Default: the number of tokens,
                with which more thread blocks start than find work.
            return_lse: also return the log-sum-exp of the logits.
            lse: array to write the log-sum-exp to, float32 [batch, queries, heads] or [tokens, heads]. Natural
                logarithm; NaN for a variant without softmax. Default: a new array, if it is returned.
            workspace: on a GPU, a float32 array of `workspace_size(...)` elements, in which thread blocks leave partial
                results where the keys of few queries are split among them; beside a `KVCache`, of `plan_size(...)`
                elements. It shares no memory with other arrays. Default: a new array of q's library. With `out` and
                `workspace` given, a call allocates nothing.
            stream: on a GPU, the stream to launch on: a raw handle, or a stream of torch, CuPy or cuda-python. It needs
                `out` (and `lse`), because new arrays would belong to the current stream, and beside a `KVCache`
                `workspace`; otherwise, without `workspace`, keys are not split.
            batch_invariant: compute each query row in a way that depends on its own query, its own keys and the variant
                alone, so that its bits do not change with the batch, the chunks of a prefill, pages, threads or
                multiprocessors; see the guide on serving. It is slower, and a `workspace` has `plan_size(...,
                batch_invariant=True)` elements.

        Returns:
            out, or (out, lse). A query that sees no key has output 0 and log-sum-exp -inf.

        Raises:
            TypeError, ValueError: an argument does not fit; the message names it, with what was expected and what came.
            RuntimeError: a tensor requires grad while grad mode is on; there is no backward pass.
            dimorph.MissingSpecialization, dimorph.BuildError: there is no kernel for these values.
        """
        if v is None or seqlens_q is not None or batch_invariant is not False or isinstance(k, KVCache):
            cache, lengths = cache_of(k, v, cu_seqlens_k), (cu_seqlens_q, seqlens_q, max_seqlen_q, max_seqlen_k)
            others = out, return_lse, lse, workspace, stream, truth("batch_invariant", batch_invariant)
            return self._attend(CachedCall(q, cache, variant, scale, *lengths, *others))
        library = libraries[type(q)]
        if (
            library.is_indirect(q, k, v, out)
            or (type(variant) is _BoundVariant and library.is_lazy(*variant.args))
            or (lse is not None and library.is_lazy(lse))
            or (cu_seqlens_q is not None and library.is_lazy(cu_seqlens_q, cu_seqlens_k))
        ) and self is not _direct:
            define_operator()
            from dimorph.attention.torch_operator import call, refuse_own

            if self is _shared:
                lengths = cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k
                return call(q, k, v, variant, scale, lengths, out, return_lse, lse, stream)
            refuse_own()

        # Validate what the kernel's entry does not.
        variant, args = validate(library, q, k, v, variant, cu_seqlens_q)
        gpu = library.gpu(q)
        if (
            stream is not None
            or type(return_lse) is not bool
            or (gpu is None and (workspace is not None or max_seqlen_q is not None or max_seqlen_k is not None))
        ):
            return_lse = check_others(return_lse, workspace, max_seqlen_q, max_seqlen_k)
            check_stream(stream, gpu, out, lse if return_lse else out)

        # Choose the function that the last call of this variant used, or ask for one. Written out, because a call of a
        # Python function takes a hundredth of the whole call.
        few = gpu is None and few_queries(q, cu_seqlens_q)
        choice = self._recent.get(variant.name)
        if (
            choice is None
            or choice.variant is not variant
            or choice.gpu != gpu
            # On a CPU, dtypes too: the entry would say that k's dtype is not q's.
            or (gpu is None and (choice.few_queries != few or choice.dtype != q.dtype))
        ):
            choice = self._functions.find(request_of(variant, q, v, gpu, few), variant)

        # Allocate what the caller has not given.
        if workspace is None and gpu is not None and stream is None:
            keys = shape_of(k, "k")[-3] if cu_seqlens_k is None or max_seqlen_k is None else max_seqlen_k
            workspace = new_workspace(library, q, shape_of(v, "v")[-1], keys)
        ragged = cu_seqlens_q is not None or cu_seqlens_k is not None
        if out is None:
            # The kernels write no rows behind the last sequence.
            make_rows = library.unseen_rows if ragged else library.empty_rows
            out = make_rows(q, shape_of(v, "v")[-1])
        if lse is None and return_lse:
            lse = (library.unseen_lse if ragged else library.empty_float32)(q, *q.shape[:-1])

        # Launch. The entry checks everything else, and that it was compiled for these values.
        lengths = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k) if ragged else _DENSE
        native = library.native and stream is None
        try:
            if gpu is None:  # written out, as above
                scaled = choice.scale if scale is None else scale
                left = choice.function(
                    q, k, v, out, scaled, variant.name, lse, cu_seqlens_q, cu_seqlens_k, few, False, *args
                )
            else:
                left = _launch(choice, q, k, v, out, scale, lse, workspace, lengths, args, native, stream)
        except SpecializationMismatch:
            exact = self._functions.find_instead(request_of(variant, q, v, gpu, few), variant)
            if exact is choice:
                raise
            left = _launch(exact, q, k, v, out, scale, lse, workspace, lengths, args, native, stream)
        if left:
            kinds = [request_of(variant, q, v, gpu, kind) for kind in (few, not few)]
            _launch_all(self._functions, kinds, variant, q, k, v, out, scale, lse, lengths, args)
        return (out, lse) if return_lse else out

    def plan(
        self,
        q: Any,
        cache: KVCache,
        *,
        variant: dm.Variant | dm.BoundVariant = Plain,
        cu_seqlens_q: Any = None,
        seqlens_q: Any = None,
        max_seqlen_q: int | None = None,
        workspace: Any = None,
        stream: Any = None,
        batch_invariant: bool = False,
    ) -> Plan:
        """Divide the work of attention over a cache among the processors of a GPU, for `run`.

        The schedule depends on the lengths of sequences only, so that one serves all layers of a model. It is made on
        the GPU, from lengths that lie there: nothing is copied back, and in a CUDA graph it is made anew in each
        replay. On the CPU there is nothing to divide beforehand.

        Lengths, offsets and tables may be lists, too, or beside a cache on a GPU arrays on the host, such as those of
        NumPy. They are checked as those of a cache on the CPU are, and copied to the device once: `Plan.cache` has the
        copies, for each `run`.

        Args:
            q: queries, of which only the shape and the dtype count.
            cache: a cache, of which the values of keys and values do not count.
            workspace: on a GPU, a float32 array of `plan_size(...)` elements for the plan. Default: a new one.
            stream: the stream to launch on, as for `attention`; with `workspace` given.
            batch_invariant: as for `attention`; it holds for each run of the plan.
            all others: as for `attention`.

        Returns:
            The plan. It serves any `run` with queries of the same shape and the same lengths; one after the other,
            because they share its workspace.

        Raises:
            as `attention`.
        """
        lengths, invariant = (cu_seqlens_q, seqlens_q, max_seqlen_q, None), truth("batch_invariant", batch_invariant)
        call = CachedCall(q, cache, variant, None, *lengths, None, False, None, workspace, stream, invariant)
        return planning.make(self._functions, on_device(call))

    def run(
        self,
        plan: Plan,
        q: Any,
        cache: KVCache,
        *,
        variant: dm.Variant | dm.BoundVariant | None = None,
        scale: float | None = None,
        out: Any = None,
        return_lse: bool = False,
        lse: Any = None,
        stream: Any = None,
    ) -> Any:
        """Compute attention over a cache by a plan; with `out`, and `lse` if it is returned, it allocates nothing.

        Args:
            plan: from `plan`. Queries are ragged, or have lengths, as they were there. On another stream than the
                plan's, the caller makes this one wait for the plan, and for other runs of it.
            q, cache: as for `plan`, with other values, of another layer perhaps.
            variant: the plan's, with other parameters. Default: the plan's.
            all others: as for `attention`.

        Returns:
            As `attention`.

        Raises:
            ValueError: the plan was made for another shape, dtype, device or variant; the message says which.
            all others: as `attention`.
        """
        return planning.run(self._functions, plan, q, cache, variant, scale, (out, return_lse, lse), stream)

    def _attend(self, call: CachedCall) -> Any:
        """Compute attention over a cache; one that is just keys and values goes the shorter way."""
        if not is_dense(call):
            return attend(self._functions, call)
        own = "q", "cache", "seqlens_q", "batch_invariant", "planned", "direct"
        options = {name: value for name, value in call._asdict().items() if name not in own}
        return self(call.q, call.cache.k, call.cache.v, cu_seqlens_k=call.cache.cu_seqlens, **options)

    def resolutions(self) -> list[dm.Resolution]:
        """Return the artifacts that serve so far, each with the reason why it was taken."""
        return self._functions.resolutions()


_shared = Attention()
# The bound method: calling the object takes up to half a microsecond more.
attention = _shared.__call__
plan, run = _shared.plan, _shared.run
# What the operator calls, where the caller's modes and transforms have had their turn.
_direct = Attention()
_direct.__dict__.update(_shared.__dict__)


def _attention(policy: str | None, settings: dm.Settings | None, family: str | None) -> Attention:
    """Make the `Attention` that another process has sent."""
    return Attention(policy=policy, settings=settings, family=family)


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
    others: bool = False,
) -> bool:
    """Call a chosen function: on a GPU it launches kernels, on the CPU it computes.

    Args:
        lengths: cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, or `_DENSE`.
        args: the variant's parameters.
        native: try the function without Python's help, see `dimorph.Module`.
        others: on the CPU, compute the sequences of the function's kind though there are others.
        all others: as for `attention`.

    Returns:
        True if nothing has been computed because there are sequences of the other kind, see csrc/cpu/attention.cc.

    Raises:
        dimorph.SpecializationMismatch: the function was compiled for other values; nothing has been done.
    """
    function, name = choice.function, choice.variant.name
    if scale is None:
        scale = choice.scale
    if choice.gpu is None:
        cu_seqlens_q, cu_seqlens_k, _, _ = lengths
        few = choice.few_queries
        return bool(function(q, k, v, out, scale, name, lse, cu_seqlens_q, cu_seqlens_k, few, others, *args))
    if not native:
        function(q, k, v, out, scale, name, lse, workspace, *lengths, *args, stream=stream)
    else:
        try:
            if lengths is _DENSE and not args:  # the most common call, and the fewest arguments to convert
                function.native(q, k, v, out, scale, name, lse, workspace)
            else:
                function.native(q, k, v, out, scale, name, lse, workspace, *lengths, *args)
        except BufferError:
            function(q, k, v, out, scale, name, lse, workspace, *lengths, *args)
    return False


def _launch_all(
    functions: Functions,
    kinds: Sequence[Request],
    variant: dm.Variant,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    scale: float | None,
    lse: Any,
    lengths: tuple[Any, Any, int | None, int | None],
    args: tuple[Any, ...],
) -> None:
    """Compute ragged sequences of which some have few queries and some have many, each kind by its own kernel.

    All kernels are found before the first one writes, because one may be missing.
    """
    for choice in [functions.find(request, variant) for request in kinds]:
        _launch(choice, q, k, v, out, scale, lse, None, lengths, args, False, None, others=True)


def define_operator() -> None:
    """Make the torch operators that take the place of these operations in a traced graph."""
    from dimorph.attention import torch_cache_operators, torch_operator

    torch_operator.define(_direct)
    functions = _shared._functions
    for name in ("attention_cached", "attention_run"):
        torch_cache_operators.define(name, functools.partial(attend, functions))
    torch_cache_operators.define("attention_plan", functools.partial(planning.make, functions))


# As torch.compiler.assume_constant_result does it, but without importing torch: the function runs while it is traced.
define_operator._dynamo_marked_constant = True  # type: ignore[attr-defined]
_shared._functions.define_operator = define_operator
