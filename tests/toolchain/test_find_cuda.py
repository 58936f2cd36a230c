"""The choice of the compiler for device code, and the process that NVRTC runs in."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dimorph import settings
from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain import archs, cuda, nvrtc, process

SM80 = archs.by_name("sm_80")


def _file(path: Path, text: str = "", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def _nvcc(root: Path, version: str = "12080", header: str = "include/cuda.h") -> Path:
    if version:
        _file(root / header, f"#define CUDA_VERSION {version}\n")
    return _file(root / "bin/nvcc", "#!/bin/sh\nexit 1\n", 0o755)


def _nvrtc(root: Path, libraries: str, headers: str, version: str = "12.6") -> Path:
    _file(root / libraries / f"libnvrtc-builtins.so.{version}")
    _file(root / headers / "cuda_fp16.h")
    return _file(root / libraries / "libnvrtc.so.12")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a machine without any CUDA."""
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    monkeypatch.setattr(cuda, "_TOOLKITS", ())
    (tmp_path / "bin").mkdir()
    return Settings(store=tmp_path / "store", path=str(tmp_path / "bin"))


def test_a_toolkit_that_the_environment_names_comes_first(bare: Settings, tmp_path: Path) -> None:
    conda = _nvrtc(tmp_path / "conda", "lib", "include")
    named = _nvrtc(tmp_path / "toolkit", "lib64", "include", "12.2")
    used = replace(bare, conda_prefix=tmp_path / "conda")
    assert cuda.find(used).program == conda
    found = cuda.find(replace(used, cuda_home=tmp_path / "toolkit"))
    assert (found.program, found.version) == (named, (12, 2))


def test_a_named_toolkit_without_nvrtc_gives_its_nvcc(bare: Settings, tmp_path: Path) -> None:
    _nvrtc(tmp_path / "conda", "lib", "include")
    nvcc = _nvcc(tmp_path / "toolkit")
    used = replace(bare, conda_prefix=tmp_path / "conda", cuda_home=tmp_path / "toolkit")
    assert cuda.find(used)[:3] == ("nvcc", nvcc, (12, 8))
    assert cuda.toolkit(used) == tmp_path / "toolkit"


@pytest.mark.parametrize("libraries", ["lib", "targets/{}/lib"])
@pytest.mark.parametrize("activated", [True, False])
def test_condas_layout(
    bare: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libraries: str, activated: bool
) -> None:
    """Its headers are below targets/, with links to the libraries beside its other ones."""
    target = cuda._TARGET.removeprefix("targets/")
    headers = f"targets/{target}/include"
    library = _nvrtc(tmp_path / "conda", libraries.format(target), headers)
    nvcc = _nvcc(tmp_path / "conda", header=f"{headers}/cuda.h")
    (tmp_path / "conda/conda-meta").mkdir()
    if activated:
        bare = replace(bare, conda_prefix=tmp_path / "conda")
    else:
        monkeypatch.setattr(sys, "prefix", str(tmp_path / "conda"))
    found = cuda.find(bare)
    assert (found.program, found.include) == (library, tmp_path / "conda" / headers)
    assert cuda.find(replace(bare, nvcc=str(nvcc)))[:3] == ("nvcc", nvcc, (12, 8))
    assert cuda.toolkit(bare) == tmp_path / "conda"


@pytest.mark.parametrize("by", ["DIMORPH_NVCC", "CUDA_HOME"])
def test_a_named_nvcc_that_lacks_its_headers_is_not_replaced(
    bare: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    whole = _nvcc(tmp_path / "usual").parent.parent
    monkeypatch.setattr(cuda, "_TOOLKITS", (whole,))
    lacking = _nvcc(tmp_path / "lacking", version="")
    used = replace(bare, nvcc=str(lacking)) if by == "DIMORPH_NVCC" else replace(bare, cuda_home=tmp_path / "lacking")
    with pytest.raises(ToolchainError, match=r"lacking/bin/nvcc: its toolkit has no include/cuda.h"):
        cuda.find(used)


def test_a_script_stands_for_the_nvcc_that_it_starts(bare: Settings, tmp_path: Path) -> None:
    real, other = _nvcc(tmp_path / "real", "12040"), _nvcc(tmp_path / "other")
    script = _file(tmp_path / "bin/nvcc", f'#!/bin/sh\nexec "{real}" "$@"\n', 0o755)
    for used in (bare, replace(bare, nvcc=str(script)), replace(bare, nvcc="nvcc")):
        assert cuda.find(used)[:3] == ("nvcc", real, (12, 4))
    script.unlink()
    script.symlink_to(other)
    assert cuda.find(replace(bare, nvcc="nvcc")).version == (12, 8)


# --- The process that NVRTC runs in ---


def _command(tmp_path: Path) -> list[str]:
    found = cuda.find(settings.current())
    return found.compile_command(tmp_path / "a.cu", tmp_path / "a.cubin", target=SM80, memo_dir=tmp_path)


def test_nvrtc_runs_in_a_python_process(tmp_path: Path) -> None:
    assert _command(tmp_path)[:3] == [sys.executable, "-I", "-S"]


@pytest.mark.parametrize("name", ["uwsgi", "blender", "python-but-my-application", ""])
def test_an_application_that_contains_python_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    program = str(_file(tmp_path / name, "#!/bin/sh\n", 0o755)) if name else ""
    monkeypatch.setattr(sys, "executable", program)
    installed = f"{sys.prefix}/bin/python3"
    assert _command(tmp_path)[0] == installed
    assert os.access(installed, os.X_OK)
    for prefix in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, prefix, str(tmp_path))
    assert _command(tmp_path)[0] == str(cuda.find(settings.current()).program)


def _frozen(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    else:
        monkeypatch.setattr(cuda, "_WORKER", Path("/in/an/archive/nvrtc.py"))

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(process, "run", refused)


@pytest.mark.parametrize("how", ["frozen", "in an archive"])
def test_where_no_python_can_be_started_nvrtc_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    found, source = cuda.find(settings.current()), _file(tmp_path / "a.cu", "__global__ void k(int* p) { *p = 1; }\n")

    def compiled(output: Path) -> process.Completed:
        command = found.compile_command(source, output, target=SM80, memo_dir=tmp_path)
        return found.run(command, timeout=60, work_dir=tmp_path, memo_dir=tmp_path)

    assert compiled(tmp_path / "apart.cubin").exit_code == 0
    _frozen(monkeypatch, how)
    assert compiled(tmp_path / "here.cubin").exit_code == 0
    assert (tmp_path / "here.cubin").read_bytes() == (tmp_path / "apart.cubin").read_bytes()
    source.write_text("__global__ void k(int* p) { mistake; }\n")
    refused = compiled(tmp_path / "refused.cubin")
    assert refused.exit_code == 1
    assert 'a.cu(1): error: identifier "mistake" is undefined' in refused.output
    assert not (tmp_path / "refused.cubin").exists()


def test_a_library_that_cannot_be_loaded_is_told_from_a_source_that_is_refused(tmp_path: Path) -> None:
    broken = _file(tmp_path / "libnvrtc.so.12", "no library")
    _file(tmp_path / "libnvrtc-builtins.so.12.6")
    source = _file(tmp_path / "a.cu")
    status, said = nvrtc.compile_file(str(broken), "-", str(source), str(tmp_path / "a.cubin"))
    assert status == 127
    assert "cannot be loaded" in said
    found = cuda.CudaCompiler("nvrtc", broken, (12, 6), tmp_path, os.environ["PATH"])
    command = found.compile_command(source, tmp_path / "a.cubin", target=SM80, memo_dir=tmp_path)
    with pytest.raises(ToolchainError, match=r"(?s)cannot start.*cannot be loaded.*DIMORPH_COMPILER_ENV"):
        found.run(command, timeout=60, work_dir=tmp_path, memo_dir=tmp_path)


def test_variables_that_the_settings_name_reach_nvrtc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIMORPH_COMPILER_ENV", "LD_LIBRARY_PATH,SOME_LICENSE_FILE")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    environment = cuda.find(settings.current()).environment(tmp_path)
    assert environment["LD_LIBRARY_PATH"] == "/somewhere"
    assert "SOME_LICENSE_FILE" not in environment


def test_text_of_any_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path and a source that are not UTF-8, in a process of its own and here."""
    directory = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    directory.mkdir()
    (directory / "a.cu").write_bytes(b"// caf\xe9\n#error caf\xe9\n")
    found = cuda.find(settings.current())

    def refused() -> str:
        command = found.compile_command(directory / "a.cu", directory / "a.cubin", target=SM80, memo_dir=directory)
        done = found.run(command, timeout=60, work_dir=directory, memo_dir=directory)
        assert done.exit_code == 1
        return done.output

    assert "#error" in refused()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert "#error" in refused()
