"""The settings: paths of every kind, a user without a home, and variables for compilers."""

from __future__ import annotations

import logging
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dimorph import settings
from support.store import in_child


@pytest.mark.parametrize(
    ("text", "expected"),
    [("~", "/home/me"), ("~/kernels", "/home/me/kernels"), ("kernels", "{here}/kernels"), ("./a", "{here}/a")],
)
def test_paths_with_a_tilde_and_relative_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(expected.format(here=tmp_path))
    env = {"HOME": "/home/me"}
    assert settings.current({**env, "DIMORPH_STORE": text}).store == path
    assert settings.current({**env, "DIMORPH_SHARED_STORES": f"{text}:/other"}).shared_stores == (path, Path("/other"))
    assert settings.current({**env, "CUDA_HOME": text}).cuda_home == path
    assert settings.current({**env, "CUDA_PATH": text}).cuda_home == path
    assert settings.current({**env, "CONDA_PREFIX": text}).conda_prefix == path


def test_a_str_means_what_it_means_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("LM_LICENSE_FILE", "27000@host")
    monkeypatch.setenv("DIMORPH_STORE_SIZE", "nonsense")  # not asked for
    given: dict[str, Any] = {
        "store": "~/kernels",
        "shared_stores": "/one:/two",
        "cxxflags": "-O2 -Wall",
        "compile_timeout": "20",
        "compiler_env": "LM_LICENSE_FILE",
        "debug": "1",
        "cuda_home": "/cuda",
        "cxx": "g++",
    }
    made = settings.Settings(**given)
    assert (made.store, made.shared_stores) == (Path("/home/me/kernels"), (Path("/one"), Path("/two")))
    assert (made.cxxflags, made.compile_timeout, made.debug) == (("-O2", "-Wall"), 20.0, True)
    assert made.compiler_env == (("LM_LICENSE_FILE", "27000@host"),)
    assert (made.cuda_home, made.cxx) == (Path("/cuda"), "g++")
    with pytest.raises(ValueError, match="DIMORPH_COMPILE_TIMEOUT: expected seconds above 0, got 'soon'"):
        settings.Settings(store=Path("unused"), compile_timeout="soon")  # type: ignore[arg-type]


def test_programs_with_a_tilde() -> None:
    env = {"HOME": "/home/me", "DIMORPH_CXX": "~/bin/ccache ~/bin/g++", "DIMORPH_NVCC": "~/nvcc", "CXX": "~/a~/b"}
    found = settings.current(env)
    assert found.cxx == "/home/me/bin/ccache /home/me/bin/g++"
    assert (found.nvcc, found.default_cxx) == ("/home/me/nvcc", "/home/me/a~/b")


def test_relative_directories_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler runs in another directory, where they would be other ones."""
    monkeypatch.chdir(tmp_path)
    assert settings.current({"PATH": "/usr/bin:/bin"}).path == "/usr/bin:/bin"
    assert settings.current({"PATH": "bin:/usr/bin:"}).path == f"{tmp_path}/bin:/usr/bin:{tmp_path}"


def test_a_working_directory_that_was_removed(tmp_path: Path) -> None:
    def child() -> str:
        gone = tmp_path / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        return str(settings.current({"DIMORPH_STORE": "store", "PATH": "bin"}).store)

    assert in_child(child) == "/store"


@pytest.mark.parametrize("env", [{}, {"HOME": ""}, {"XDG_CACHE_HOME": "relative"}, {"XDG_CACHE_HOME": ""}])
def test_without_a_home_the_list_of_users_is_asked(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(uid: int) -> None:
        raise KeyError(uid)

    home = pwd.getpwuid(os.getuid()).pw_dir
    assert settings.current(env).store == Path(home, ".cache/dimorph")
    monkeypatch.setattr(pwd, "getpwuid", missing)
    assert settings.current({**env, "TMPDIR": "/scratch"}).store == Path(f"/scratch/dimorph-{os.getuid()}")
    assert settings.current({**env, "DIMORPH_STORE": "~/a"}).store.is_absolute()
    assert settings.current({**env, "DIMORPH_STORE": "~nobody-of-that-name/a"}).store.is_absolute()


def test_an_absolute_cache_directory_counts() -> None:
    assert settings.current({"XDG_CACHE_HOME": "/cache", "HOME": "/home/me"}).store == Path("/cache/dimorph")


def test_variables_for_compilers() -> None:
    env = {"DIMORPH_COMPILER_ENV": " LD_LIBRARY_PATH, ,ABSENT,SPACK_CC", "LD_LIBRARY_PATH": "/l", "SPACK_CC": ""}
    assert settings.current(env).compiler_env == (("LD_LIBRARY_PATH", "/l"), ("SPACK_CC", ""))
    for text in ("PATH", "TMPDIR", "a b", "x=y", "*"):
        with pytest.raises(ValueError, match=r"DIMORPH_COMPILER_ENV: expected names of variables"):
            settings.current({"DIMORPH_COMPILER_ENV": text})


@pytest.mark.parametrize("text", ["loud", "INFO", "1"])
def test_a_level_that_does_not_exist(text: str) -> None:
    with pytest.raises(ValueError, match="DIMORPH_LOG: expected one of debug, info, warning, error, off, got"):
        settings.current({"DIMORPH_LOG": text})


def test_the_log_is_shown_once_and_only_where_the_program_shows_none() -> None:
    script = (
        "import logging, sys\n"
        "from dimorph._lazy import logger, show_log\n"
        "show_log('info'); show_log('info')\n"
        "logger('dimorph').info('first'); logger('dimorph.store').debug('hidden')\n"
        "logging.basicConfig(format='own: %(message)s', level=0)\n"
        "logger('dimorph').info('second')\n"
        "show_log('off'); logger('dimorph').error('third')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "first\nown: second\n"
    assert logging.getLogger("dimorph").level == logging.NOTSET
