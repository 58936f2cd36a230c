"""The import of tvm-ffi: torch stays out until the caller imports it, and is the real one then."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.kernels import ARGUMENTS, PICK
from support.programs import run

pytestmark = pytest.mark.usefixtures("warm_store")


@pytest.fixture(autouse=True)
def built(warm_store: Path) -> None:
    PICK.load().pick(1, 1)
    ARGUMENTS.load()


def test_a_store_hit_and_calls_import_no_torch() -> None:
    run(
        """
        import sys
        import numpy as np
        from support.kernels import ARGUMENTS, PICK
        before = list(sys.meta_path)
        assert PICK.load().pick(1, 1) == 1001
        functions = ARGUMENTS.load()
        assert functions.sum(np.ones(3)) == 3 and functions.echo_str("text") == "text"
        frozen = np.ones(3)
        frozen.flags.writeable = False
        assert functions.sum(frozen) == 3
        assert sys.meta_path == before
        import tvm_ffi
        tvm_ffi.convert({"a": [1, 2.5]})
        assert not [name for name in sys.modules if name.partition(".")[0] == "torch"]
        assert "dimorph.runtime.tvm.torch" not in sys.modules
        """
    )


def test_torch_that_is_imported_after_a_load_is_taken() -> None:
    run(
        """
        import sys
        from support.kernels import ARGUMENTS
        functions = ARGUMENTS.load()
        assert functions.echo_int64(1) == 1 and "torch" not in sys.modules
        import torch, tvm_ffi
        assert functions.sum(torch.ones(3, dtype=torch.float64)) == 3
        assert str(functions.echo_dtype(torch.bfloat16)) == "bfloat16"
        assert str(functions.echo_dtype(torch.float8_e4m3fn)) == "float8_e4m3fn"
        assert tvm_ffi.core.torch is tvm_ffi._convert.torch is tvm_ffi.stream.torch is torch
        """
    )


def test_other_users_of_tvm_ffi_get_all_of_torch() -> None:
    """A library that imports tvm-ffi after Dimorph finds the parts of tvm-ffi that need torch."""
    run(
        """
        from support.kernels import PICK
        PICK.load()
        import tvm_ffi
        try:
            with tvm_ffi.use_torch_stream():
                raise SystemExit("a stream without a GPU")
        except (AssertionError, RuntimeError) as error:  # torch's own error
            assert "CUDA" in str(error) or "NVIDIA" in str(error), error
        import torch
        assert tvm_ffi.convert(torch.int16) == tvm_ffi.dtype("int16")
        echo = tvm_ffi.convert(lambda x: x)
        assert str(echo(torch.uint16)) == "uint16"
        assert torch.from_dlpack(echo(torch.ones(2))).tolist() == [1, 1]
        """
    )


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1])
def test_torch_that_other_threads_import_meanwhile_is_the_real_one(delay: float) -> None:
    run(
        """
        import sys, threading, time
        from support.kernels import PICK
        barrier = threading.Barrier(5)
        found = []
        def import_torch():
            barrier.wait()
            time.sleep(float(sys.argv[1]))
            import torch
            found.append(torch.ones(2).sum().item())
        threads = [threading.Thread(target=import_torch) for _ in range(3)]
        threads.append(threading.Thread(target=lambda: (barrier.wait(), found.append(PICK.load().pick(1, 1)))))
        for thread in threads: thread.start()
        barrier.wait()
        for thread in threads: thread.join()
        assert sorted(found) == [2.0, 2.0, 2.0, 1001], found
        """,
        str(delay),
        limit=200,
    )


def test_torch_that_is_there_already_is_used_as_it_is() -> None:
    run(
        """
        import torch
        from support.kernels import ARGUMENTS
        import tvm_ffi
        functions = ARGUMENTS.load()
        assert tvm_ffi.core.torch is torch
        assert functions.sum(torch.ones(3, dtype=torch.float64)) == 3
        assert str(functions.echo_dtype(torch.float16)) == "float16"
        """
    )


OLD_TORCH = """
import numpy as np

class dtype: ...
float32, int8 = dtype(), dtype()

class Tensor:
    is_cuda = False
    def __init__(self, values): self.values = np.asarray(values, np.float64)
    def __dlpack__(self, **options): return self.values.__dlpack__(**options)
    def __dlpack_device__(self): return self.values.__dlpack_device__()

class utils:
    class dlpack:
        to_dlpack = staticmethod(lambda tensor: tensor.values.__dlpack__())
"""


def test_tensors_of_an_old_torch_get_the_extension_of_tvm_ffi(tmp_path: Path) -> None:
    """Torch before 2.10 lacks the fast protocol for tensors; tvm-ffi has an extension that adds it."""
    (tmp_path / "torch.py").write_text(OLD_TORCH)
    run(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        from support.kernels import ARGUMENTS
        functions = ARGUMENTS.load()
        from tvm_ffi import _optional_torch_c_dlpack as extension
        ran = []
        extension.load_torch_c_dlpack_extension = lambda: ran.append("extension")
        extension.patch_torch_cuda_stream_protocol = lambda: ran.append("streams")
        import torch
        assert functions.sum(torch.Tensor([1, 2])) == 3
        assert str(functions.echo_dtype(torch.int8)) == "int8"
        assert ran == ["extension", "streams"], ran
        """,
        str(tmp_path),
    )


def test_a_missing_torch_is_no_error() -> None:
    run(
        """
        import sys
        sys.modules["torch"] = None
        from support.kernels import ARGUMENTS
        import numpy as np
        assert ARGUMENTS.load().sum(np.ones(3)) == 3
        """
    )
    run(
        """
        import sys
        from support.kernels import ARGUMENTS
        ARGUMENTS.load()
        sys.modules["torch"] = None
        import numpy as np
        assert ARGUMENTS.load().sum(np.ones(3)) == 3
        """
    )
