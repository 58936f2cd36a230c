"""Array libraries: all that attention asks of the arrays of a call beyond their DLPack export.

`libraries[type(array)]` is the library of an array. A library that the array API standard does not describe well enough
is one more class here, and one more line in `_Libraries`.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import modules
from typing import Any

_DLPACK_CUDA = 2  # kDLCUDA


class Library:
    """An array library that is known by DLPack and the array API standard alone, such as JAX.

    Attributes:
        native: tvm-ffi finds the current stream of this library's arrays by itself.
        is_traced: tells whether the caller is being traced into a graph, in which arrays hold no data.
        records_gradients: tells whether operations are being recorded for a backward pass.
    """

    native = False
    is_traced: Callable[[], bool]
    records_gradients: Callable[[], bool]

    def __init__(self) -> None:
        self.is_traced = self.records_gradients = _never

    def gpu(self, array: Any) -> int | None:
        """Return the ordinal of the GPU that an array lies on, or None if it lies elsewhere."""
        if not hasattr(array, "__dlpack_device__"):
            return None
        kind, ordinal = array.__dlpack_device__()
        return int(ordinal) if kind == _DLPACK_CUDA else None

    def empty_rows(self, like: Any, size: int) -> Any:
        """Make a C-contiguous array, not initialised, of the kind, device and dtype of another one.

        Its shape is that of `like` with `size` in place of the last dimension.

        Raises:
            TypeError: no such array can be made, because its library has no namespace of the array API.
        """
        return _namespace(like).empty((*like.shape[:-1], size), dtype=like.dtype, device=like.device)

    def empty_float32(self, like: Any, *shape: int) -> Any:
        """Make a float32 array, not initialised, of the kind and device of another one."""
        namespace = _namespace(like)
        return namespace.empty(shape, dtype=namespace.float32, device=like.device)


def _namespace(array: Any) -> Any:
    if not hasattr(array, "__array_namespace__"):
        raise TypeError(f"attention: argument 'out': give one, because no {describe(array)} can be made here")
    return array.__array_namespace__()


class NumPy(Library):
    """NumPy, whose arrays lie on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self._numpy = modules["numpy"]

    def gpu(self, array: Any) -> int | None:
        return None

    def empty_rows(self, like: Any, size: int) -> Any:
        return self._numpy.empty((*like.shape[:-1], size), like.dtype)

    def empty_float32(self, like: Any, *shape: int) -> Any:
        return self._numpy.empty(shape, self._numpy.float32)


class CuPy(Library):
    """CuPy, whose current device is not always that of an array."""

    def __init__(self) -> None:
        super().__init__()
        self._cupy = modules["cupy"]

    def empty_rows(self, like: Any, size: int) -> Any:
        with like.device:
            return self._cupy.empty((*like.shape[:-1], size), like.dtype)

    def empty_float32(self, like: Any, *shape: int) -> Any:
        with like.device:
            return self._cupy.empty(shape, self._cupy.float32)


class Torch(Library):
    """PyTorch. Its functions are looked up once, because a look-up takes as long as a call of them."""

    native = True

    def __init__(self) -> None:
        torch: Any = modules["torch"]
        self._empty_like = torch.empty_like
        self._float32 = torch.float32
        self.is_traced = torch.compiler.is_compiling
        self.records_gradients = torch.is_grad_enabled

    def gpu(self, array: Any) -> int | None:
        ordinal: int = array.get_device()
        return ordinal if ordinal >= 0 else None

    def empty_rows(self, like: Any, size: int) -> Any:
        shape = like.shape
        # `empty_like` takes half the time of `new_empty`, but keeps whatever strides `like` has.
        if shape[-1] == size and like.is_contiguous():
            return self._empty_like(like)
        return like.new_empty(*shape[:-1], size)

    def empty_float32(self, like: Any, *shape: int) -> Any:
        # Sizes as numbers: a tuple of them takes a third longer.
        return like.new_empty(*shape, dtype=self._float32)


class _Libraries(dict[type, Library]):
    """The library of each type of array that a call has had so far."""

    def __missing__(self, kind: type) -> Library:
        library = Library()
        for package, name, made in (("torch", "Tensor", Torch), ("numpy", "ndarray", NumPy), ("cupy", "ndarray", CuPy)):
            # Whoever passes an array has imported its package.
            if package in modules and issubclass(kind, getattr(modules[package], name)):
                library = made()
        self[kind] = library
        return library


libraries = _Libraries()


def _never() -> bool:
    return False


def check_place(array: Any) -> None:
    """Refuse q where torch has put it on a GPU of another maker.

    Raises:
        ValueError: that is so.
    """
    if not getattr(array, "is_cuda", True):
        raise ValueError("attention: argument 'q': expected an array on the CPU or on an NVIDIA GPU")


def requires_grad(array: Any) -> bool:
    """Tell whether an argument is a torch tensor that a backward pass would ask for a gradient."""
    return bool(getattr(array, "requires_grad", False))


def describe(array: object) -> str:
    """Return type, dtype and shape of an array for messages, or the type of anything else."""
    shape = getattr(array, "shape", None)
    return f"{type(array).__name__} of shape {tuple(shape)}" if shape is not None else type(array).__name__
