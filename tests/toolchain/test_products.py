"""The check of a compiler's output: whole, and of the kind asked for."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import dimorph as dm
from dimorph import settings
from dimorph.errors import BuildError
from dimorph.store.store import Store
from dimorph.toolchain import archs, host, process, products, targets
from support.compilers import GXX
from support.cuda import RMS
from support.kernels import PICK

Copier = Callable[..., dm.Kernel]
LEVEL = targets.levels()[-1]
SM80, PTX80 = archs.by_name("sm_80"), archs.by_name("compute_80")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A shared object, as the compiler of this machine makes it."""
    work = tmp_path_factory.mktemp("whole")
    source, output = work / "a.cc", work / "a.so"
    source.write_text('extern "C" int f() { return 1; }\n')
    compiler = host.find(settings.current())
    command = compiler.compile_command(source, output, target=LEVEL)
    done = process.run(command, timeout=300, cwd=work, env=compiler.environment(work))
    assert done.exit_code == 0, done.output
    return output.read_bytes()


def _fault(tmp_path: Path, content: bytes, suffix: str = ".so", target: targets.Target | archs.Arch = LEVEL) -> str:
    file = tmp_path / f"case{suffix}"
    file.write_bytes(content)
    return products.fault(file, target) or ""


def test_a_whole_object_has_no_fault(whole: bytes, tmp_path: Path) -> None:
    assert _fault(tmp_path, whole) == ""
    assert products.fault(tmp_path / "absent.so", LEVEL) == "there is no output"


def test_an_object_cut_off_anywhere_has_one(whole: bytes, tmp_path: Path) -> None:
    for length in [*range(0, 200, 7), *range(200, len(whole), 97), len(whole) - 1]:
        assert _fault(tmp_path, whole[:length]), length
        assert _fault(tmp_path, whole[:length], ".cubin", SM80), length


@pytest.mark.parametrize(("offset", "value", "words"), [(4, 1, "32 bits"), (5, 2, "big-endian"), (18, 250, "machine")])
def test_an_object_of_another_machine_has_one(
    whole: bytes, tmp_path: Path, offset: int, value: int, words: str
) -> None:
    assert words in _fault(tmp_path, whole[:offset] + bytes([value]) + whole[offset + 1 :])


@pytest.mark.parametrize("kind", [1, 2, 4])
def test_another_kind_of_file_has_one(whole: bytes, tmp_path: Path, kind: int) -> None:
    assert _fault(tmp_path, whole[:16] + struct.pack("<H", kind) + whole[18:])


def test_ptx(tmp_path: Path) -> None:
    text = b"//\n.version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() {\nret;\n}\n\0"
    assert _fault(tmp_path, text, ".ptx", PTX80) == ""
    assert "no PTX" in _fault(tmp_path, b"", ".ptx", PTX80)
    assert "no PTX" in _fault(tmp_path, text.replace(b".target", b".t"), ".ptx", PTX80)
    assert "cut off" in _fault(tmp_path, text[:-5], ".ptx", PTX80)
    assert "for sm_80, not for sm_90" in _fault(tmp_path, text, ".ptx", archs.by_name("compute_90"))


def _compiler(tmp_path: Path, after: str) -> str:
    """Return a compiler that reports success, whatever happened, and runs shell code after each compile."""
    driver = tmp_path / "driver" / "some-g++"
    driver.parent.mkdir()
    driver.write_text(
        f'#!/bin/sh\n{GXX} "$@" || exit\ncase " $* " in *" -shared "*" -o "*) ;; *) exit 0;; esac\n'
        f'while [ "$1" != -o ]; do shift; done\n{after}\n'
    )
    driver.chmod(0o755)
    return str(driver)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ('rm "$2"', "there is no output"),
        ('truncate -s 1000 "$2"', "cut off"),
        (': > "$2"', "no object file"),
        ('echo text > "$2"', "no object file"),
        (f'echo "int x;" > "$2.cc"; {GXX} -c "$2.cc" -o "$2"', "relocatable"),
        (f'echo "int main() {{}}" > "$2.cc"; {GXX} -pie "$2.cc" -o "$2"', "no shared object"),
    ],
)
def test_bad_output_of_a_host_compiler_is_never_published(
    copy_of: Copier, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str, expected: str
) -> None:
    kernel = copy_of(PICK)
    monkeypatch.setenv("DIMORPH_CXX", _compiler(tmp_path, after))
    with pytest.raises(BuildError, match=expected) as caught:
        kernel.load(width=1, depth=1)
    assert "some-g++, which reported success" in str(caught.value)
    assert list(Store(store).entries()) == []


@pytest.mark.parametrize("suffix", ["cubin", "ptx"])
def test_bad_output_of_a_device_compiler_is_never_published(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    nvcc, header = tmp_path / "toolkit/bin/nvcc", tmp_path / "toolkit/include/cuda.h"
    for file in (nvcc, header):
        file.parent.mkdir(parents=True)
    nvcc.write_text('#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" != -o ] || : > "$2"; shift; done\n')
    nvcc.chmod(0o755)
    header.write_text("#define CUDA_VERSION 12080\n")
    used = replace(settings.current(), nvcc=str(nvcc), arch="sm_80" if suffix == "cubin" else "compute_80")
    expected = "no object file" if suffix == "cubin" else "no PTX"
    with pytest.raises(BuildError, match=expected):
        RMS.build(tmp_path / "out", settings=used)
    assert [entry for entry in Store(store).entries() if "device" in str(entry)] == []
