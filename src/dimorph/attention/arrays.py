"""Array libraries: everything that attention needs of arrays beyond their DLPack export.

`libraries[type(array)]` is the library of an array. Any library that follows the array API standard works as it is;
another one is one more class here, named in `_PACKAGES`.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable
from sys import modules
from typing import Any

_DLPACK_CUDA = 2  # kDLCUDA
# What Python reads of an argument; the kernel's entry reads the rest from the DLPack export.
_READ = {"q": ("shape", "dtype", "__dlpack__"), "k": (), "v": ("shape",)}


class Library:
    """Any array library that follows DLPack and the array API standard, such as JAX.

    Attributes:
        native: True if tvm-ffi knows the library's current stream.
        is_indirect: with q, k, v and out (or None), returns True if a call must not just use their memory: the caller's
            operations are recorded or changed, or memory does not hold the values as they are.
        is_lazy: with other arguments, returns True if the memory of one does not hold its values as they are.
        records_gradients: returns True while operations are recorded for a backward pass.
        checks: True if `check` has to look at each array.
    """

    native = False
    checks = False
    is_indirect: Callable[[Any, Any, Any, Any], bool]
    is_lazy: Callable[..., bool]
    records_gradients: Callable[[], bool]

    def __init__(self) -> None:
        self.records_gradients = _never
        self.is_indirect = _is_beside_indirect
        self.is_lazy = _is_lazy

    def check(self, array: Any, name: str) -> None:
        """Refuse an array that cannot be an argument of attention; `name`: the argument.

        Raises:
            TypeError: it is no array, or says more than its export does.
        """
        if isinstance(array, type):
            raise TypeError(f"attention: argument '{name}': expected an array, got {array!r}")
        if lacking := [needed for needed in _READ[name] if not hasattr(array, needed)]:
            raise TypeError(
                f"attention: argument '{name}': expected an array with a {lacking[0]}, got {describe(array)}"
            )

    def gpu(self, array: Any) -> int | None:
        """Return the ordinal of the GPU that an array lies on, or None if it lies elsewhere."""
        if not hasattr(array, "__dlpack_device__"):
            return None
        kind, ordinal = array.__dlpack_device__()
        return int(ordinal) if kind == _DLPACK_CUDA else None

    def empty_rows(self, like: Any, size: int) -> Any:
        """Make a C-contiguous, uninitialised array of the library, device and dtype of `like`.

        Its shape is that of `like` with `size` in place of the last dimension.

        Raises:
            TypeError: the library has no array API namespace to make arrays with.
        """
        return _namespace(like).empty((*like.shape[:-1], size), dtype=like.dtype, device=like.device)

    def empty_float32(self, like: Any, *shape: int) -> Any:
        """Make an uninitialised float32 array of the library and device of `like`; raises as `empty_rows`."""
        namespace = _namespace(like)
        return namespace.empty(shape, dtype=namespace.float32, device=like.device)

    def unseen_rows(self, like: Any, size: int) -> Any:
        """Make an array as `empty_rows` does, filled with the output of queries that see no key: zeros."""
        return _namespace(like).zeros((*like.shape[:-1], size), dtype=like.dtype, device=like.device)

    def unseen_lse(self, like: Any, *shape: int) -> Any:
        """Make an array as `empty_float32` does, filled with the log-sum-exp of queries that see no key: -inf."""
        namespace = _namespace(like)
        return namespace.full(shape, -math.inf, dtype=namespace.float32, device=like.device)

    def int32_array(self, like: Any, numbers: list[Any]) -> Any:
        """Make an int32 array of the library and device of `like` with the numbers of a list, or of lists."""
        namespace = _namespace(like)
        return namespace.asarray(numbers, dtype=namespace.int32, device=like.device)

    def stack(self, arrays: list[Any]) -> Any:
        """Make one array of arrays of one shape, one after the other in a new first dimension."""
        return _namespace(arrays[0]).stack(arrays)


def _namespace(array: Any) -> Any:
    if not hasattr(array, "__array_namespace__"):
        raise TypeError(f"attention: argument 'out': give one, because no {describe(array)} can be made here")
    return array.__array_namespace__()


class NumPy(Library):
    """NumPy, also before 2.0, where its arrays know no array API namespace."""

    def __init__(self) -> None:
        super().__init__()
        self._numpy = modules["numpy"]

    def check(self, array: Any, name: str) -> None:
        if isinstance(array, self._numpy.ma.MaskedArray):
            raise TypeError(
                f"attention: argument '{name}': expected an array without a mask, got a masked array, whose mask would "
                f"be ignored; give its data, and the mask as a variant"
            )

    def gpu(self, array: Any) -> int | None:
        return None

    def empty_rows(self, like: Any, size: int) -> Any:
        return self._numpy.empty((*like.shape[:-1], size), like.dtype)

    def empty_float32(self, like: Any, *shape: int) -> Any:
        return self._numpy.empty(shape, self._numpy.float32)

    def unseen_rows(self, like: Any, size: int) -> Any:
        return self._numpy.zeros((*like.shape[:-1], size), like.dtype)

    def unseen_lse(self, like: Any, *shape: int) -> Any:
        return self._numpy.full(shape, -math.inf, self._numpy.float32)

    def int32_array(self, like: Any, numbers: list[Any]) -> Any:
        return self._numpy.asarray(numbers, self._numpy.int32)

    def stack(self, arrays: list[Any]) -> Any:
        return self._numpy.stack(arrays)


class CuPy(Library):
    """CuPy, which makes arrays on its current device unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self._cupy = modules["cupy"]

    def empty_rows(self, like: Any, size: int) -> Any:
        with like.device:
            return self._cupy.empty((*like.shape[:-1], size), like.dtype)

    def empty_float32(self, like: Any, *shape: int) -> Any:
        with like.device:
            return self._cupy.empty(shape, self._cupy.float32)

    def unseen_rows(self, like: Any, size: int) -> Any:
        with like.device:
            return self._cupy.zeros((*like.shape[:-1], size), like.dtype)

    def unseen_lse(self, like: Any, *shape: int) -> Any:
        with like.device:
            return self._cupy.full(shape, -math.inf, self._cupy.float32)

    def int32_array(self, like: Any, numbers: list[Any]) -> Any:
        with like.device:
            return self._cupy.asarray(numbers, self._cupy.int32)

    def stack(self, arrays: list[Any]) -> Any:
        with arrays[0].device:
            return self._cupy.stack(arrays)


class Torch(Library):
    """PyTorch. It keeps torch's functions, because looking one up takes as long as calling it."""

    native = True

    def __init__(self) -> None:
        torch: Any = modules["torch"]
        self._empty_like = torch.empty_like
        self._float32 = torch.float32
        self._contiguous = torch.contiguous_format
        self.is_indirect = _indirect(torch)
        self.is_lazy = _lazy(torch.Tensor)
        self.records_gradients = torch.is_grad_enabled

    def gpu(self, array: Any) -> int | None:
        ordinal: int = array.get_device()
        return ordinal if ordinal >= 0 else None

    def empty_rows(self, like: Any, size: int) -> Any:
        # The fastest of torch's functions that serves. `empty_like` copies the order of strides unless told otherwise.
        shape = like.shape
        if shape[-1] != size:
            return like.new_empty(*shape[:-1], size)
        if like.is_contiguous():
            return self._empty_like(like)
        return self._empty_like(like, memory_format=self._contiguous)

    def empty_float32(self, like: Any, *shape: int) -> Any:
        # A tuple of sizes would take a third longer than sizes as arguments.
        return like.new_empty(*shape, dtype=self._float32)

    def unseen_rows(self, like: Any, size: int) -> Any:
        return like.new_zeros(*like.shape[:-1], size)

    def unseen_lse(self, like: Any, *shape: int) -> Any:
        return like.new_full(shape, -math.inf, dtype=self._float32)

    def int32_array(self, like: Any, numbers: list[Any]) -> Any:
        torch = modules["torch"]
        return torch.tensor(numbers, dtype=torch.int32, device=like.device)

    def stack(self, arrays: list[Any]) -> Any:
        return modules["torch"].stack(arrays)


class TorchSubclass(Torch):
    """Tensors whose type computes operations itself, such as fake tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.is_indirect = _always


# Package, its type of arrays, library. Whoever passes an array has imported the package.
_PACKAGES = (("numpy", "ndarray", NumPy), ("torch", "Tensor", Torch), ("cupy", "ndarray", CuPy))


class _Libraries(dict[type, Library]):
    """Type of array -> library, filled when a type is first seen."""

    def __missing__(self, kind: type) -> Library:
        found = Library()
        for package, name, library in _PACKAGES:
            module = modules.get(package)  # None also where an import of it is blocked
            if module is not None and issubclass(kind, getattr(module, name)):
                found = TorchSubclass() if package == "torch" and _computes(kind) else library()
        found.checks = type(found) is Library or (type(found) is NumPy and kind.__name__ == "MaskedArray")
        self[kind] = found
        return found


libraries = _Libraries()


def _never(*_: Any) -> bool:
    return False


def _always(*_: Any) -> bool:
    return True


def _computes(kind: Any) -> bool:
    """Return True for a type of tensors that handles operations itself; parameters do not."""
    return bool(kind.__torch_dispatch__ is not modules["torch"].Tensor.__torch_dispatch__)


def _is_beside_indirect(q: Any, k: Any, v: Any, out: Any) -> bool:
    """Be `is_indirect` of any library but torch, whose tensors may be beside its arrays."""
    kind = type(q)
    return (
        (type(k) is not kind and _refers(k))
        or (type(v) is not kind and _refers(v))
        or (type(out) is not kind and out is not None and _refers(out))
    )


def _is_lazy(*arrays: Any) -> bool:
    return any(map(_refers, arrays))


def _indirect(torch: Any) -> Callable[[Any, Any, Any, Any], bool]:
    """Return `Torch.is_indirect`: a closure, because attributes of an object would take as long as the checks."""
    tensor, is_compiling, forward_mode = torch.Tensor, torch.compiler.is_dynamo_compiling, torch.autograd.forward_ad
    # Modes such as those of make_fx and FakeTensorMode, transforms such as vmap, and torch.jit.trace. There are no
    # public names for them.
    modes, transforms = torch._C._len_torch_dispatch_stack, torch._C._functorch.peek_interpreter_stack
    jit_trace = torch._C._get_tracing_state

    def is_indirect(q: Any, k: Any, v: Any, out: Any) -> bool:
        return (
            is_compiling()
            or modes() > 0
            or transforms() is not None
            or jit_trace() is not None
            or forward_mode._current_level >= 0
            or q.is_meta
            or q.is_neg()
            or (k.is_neg() if type(k) is tensor else _refers(k))
            or (v.is_neg() if type(v) is tensor else _refers(v))
            or (out is not None and (out.is_neg() if type(out) is tensor else _refers(out)))
        )

    return is_indirect


def _lazy(tensor: type) -> Callable[..., bool]:
    """Return `Torch.is_lazy`, which is quick for plain tensors and numbers."""

    def is_lazy(*arrays: Any) -> bool:
        for array in arrays:
            kind = type(array)
            if kind is tensor:
                if array.is_neg():
                    return True
            elif kind is not int and kind is not float and _refers(array):
                return True
        return False

    return is_lazy


def _refers(array: Any) -> bool:
    """Return True for a tensor whose memory does not hold its values as they are; anything may be given."""
    library = libraries[type(array)]
    return isinstance(library, Torch) and (isinstance(library, TorchSubclass) or bool(array.is_neg()))


def requires_grad(array: Any) -> bool:
    """Return True for a torch tensor whose gradient a backward pass would need."""
    return bool(getattr(array, "requires_grad", False))


def describe(value: object) -> str:
    """Return a value as words for messages: the type and shape of an array, without its elements."""
    shape = getattr(value, "shape", None)
    if isinstance(value, type) or not isinstance(shape, Iterable):
        return reprlib.repr(value)
    return f"{type(value).__name__} of shape {tuple(shape)}"
