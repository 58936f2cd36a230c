"""The same sources have the same keys everywhere: what one place builds, every other loads under policy `aot`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tvm_ffi

import dimorph as dm
from support.kernels import PICK
from support.store import ME, needs_root

LIBRARY, FFI = Path(dm.__file__).parent, Path(tvm_ffi.__file__).parent

# Prints the keys of many units, with and without device code, and where the units of one load come from.
_REPORT = """
import json, os, sys
from pathlib import Path
from support import kernels
from dimorph import settings
from dimorph.attention import kernels as attention
from dimorph.declare.instantiations import instantiate
from dimorph.plan.load_plan import load_plan
from dimorph.resolve.resolver import resolve
from dimorph.toolchain import archs, targets

levels = {"host": targets.by_name("x86-64-v3"), "device": archs.by_name("sm_80")}
config = settings.current()
keys = {}
one = {"dtype": "float16", "head_dims": (64, 64)}
for kernel, values in [(kernels.PICK, {}), (kernels.SCALE, {"width": 7}), (kernels.KINDS, {}), (kernels.FUNCTOR, {}),
                       (attention.attention_cpu, {"head_dims": (64, 64)}), (attention.attention_sm80, one)]:
    for unit in load_plan(instantiate(kernel, values), lambda _: [(levels["device"],)]):
        level = levels["device" if unit.kind == "device" else "host"]
        keys[unit.label] = unit.key(level, config)
units = load_plan(instantiate(kernels.PICK, {"width": 1, "depth": 1}), lambda _: [])
print(json.dumps({"keys": keys, "places": [one.place for one in resolve(units, config, "aot")]}))
"""
_LOAD = """
from support.kernels import PICK
assert PICK.load(policy="aot", width=1, depth=1).pick(1, 1) == 1001
"""


class Place(NamedTuple):
    """A place with a library, sources and an interpreter, and the environment of its processes."""

    root: Path
    python: str = sys.executable
    environment: Mapping[str, str] | None = None
    user: int | None = None

    @classmethod
    def made(cls, root: Path, **named: Any) -> Place:
        """Return a place with copies of all that an installation has."""
        ignored = shutil.ignore_patterns("__pycache__", "_dimorph", "emulator", "native", "packages", "mistakes")
        shutil.copytree(LIBRARY, root / "library" / "dimorph", ignore=ignored)
        for name in ("tvm_ffi", "typing_extensions.py"):
            (root / "library" / name).symlink_to(FFI.parent / name)
        shutil.copytree(Path(__file__).parents[1] / "support", root / "project" / "support", ignore=ignored)
        return cls(root, **named)

    def run(self, script: str, built: Path) -> str:
        """Run Python code where nothing can be compiled, with a directory that was built as a shared store."""
        environment = {
            "PATH": "/nonexistent",
            "HOME": str(self.root / "home"),
            "DIMORPH_SHARED_STORES": str(built),
            "PYTHONPATH": f"{self.root / 'library'}:{self.root / 'project'}",
            **(self.environment or {}),
        }
        command = [self.python, "-c", script]
        done = subprocess.run(
            command, env=environment, cwd="/", user=self.user, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.made(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that was built ahead in this checkout."""
    out = tmp_path_factory.mktemp("built") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIMORPH_STORE", str(out.with_name("store")))
        PICK.build(out, width=1, depth=1)
    return out


@pytest.fixture(scope="module")
def expected(home: Place, built: Path) -> dict[str, str]:
    return dict(json.loads(home.run(_REPORT, built))["keys"])


def check(place: Place, built: Path, expected: dict[str, str], *, load: bool = True) -> None:
    report = json.loads(place.run(_REPORT, built))
    assert report["keys"] == expected
    assert all(where.startswith("shared store") for where in report["places"]), report["places"]
    if load:
        place.run(_LOAD, built)
    assert not (place.root / "home").exists()  # nothing was written


ODD = {
    **dict.fromkeys(("CPATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "C_INCLUDE_PATH", "XDG_CACHE_HOME"), "/odd"),
    **dict.fromkeys(("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "NVCC_APPEND_FLAGS"), "-O0 -DODD=1"),
    **{"LANG": "tr_TR.UTF-8", "LC_ALL": "C", "TZ": "Asia/Kathmandu", "SOURCE_DATE_EPOCH": "1", "USER": "nobody"},
    **{"PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "2", "PYTHONDEVMODE": "1", "PYTHONUTF8": "0", "TMPDIR": "/odd"},
    **{"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "20", "HOSTNAME": "odd"},
}


def test_odd_environment(home: Place, built: Path, expected: dict[str, str]) -> None:
    check(home._replace(environment=ODD), built, expected)


def test_other_paths_of_sources_library_and_home(tmp_path: Path, built: Path, expected: dict[str, str]) -> None:
    check(Place.made(tmp_path / "another place, with a comma"), built, expected)


@pytest.mark.parametrize("links", ["to a directory", "to files"])
def test_behind_links(home: Place, tmp_path: Path, built: Path, expected: dict[str, str], links: str) -> None:
    """A link may lead to a whole installation, or each file of one be a link, as some installers make them."""
    root = tmp_path / "linked"
    if links == "to a directory":
        root.symlink_to(home.root)
    else:
        shutil.copytree(home.root, root, copy_function=lambda file, copy: Path(copy).symlink_to(file), symlinks=True)
    check(home._replace(root=root), built, expected)


@pytest.fixture(params=[(3, 10), (3, 11), (3, 12), (3, 13)], ids=lambda version: f"{version[0]}.{version[1]}")
def interpreter(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """Another interpreter of this machine, and whether tvm-ffi's module for this one loads in it."""
    name = f"python{request.param[0]}.{request.param[1]}"
    known = [f"/usr/bin/{name}", *map(str, Path.home().glob(f".pyenv/versions/*/bin/{name}"))]
    others = [path for path in known if os.access(path, os.X_OK) and os.path.realpath(path) != _OURS]
    if not others:
        pytest.skip(f"{name} is not installed beside this Python")
    yield others[0], request.param == sys.version_info[:2]


_OURS = os.path.realpath(sys.executable)


def test_other_python(home: Place, interpreter: tuple[str, bool], built: Path, expected: dict[str, str]) -> None:
    python, loads = interpreter
    check(home._replace(python=python), built, expected, load=loads)


@needs_root
def test_another_user(open_path: Path, built: Path, expected: dict[str, str]) -> None:
    """Nothing of the first user's can be entered, so library, sources and artifacts are copies."""
    python = "/usr/bin/python3"
    if not os.access(python, os.X_OK):
        pytest.skip("there is no Python that another user can run")
    place = Place.made(open_path / "theirs", python=python, user=ME)
    for link in [path for path in (place.root / "library").iterdir() if path.is_symlink()]:
        copy, target = shutil.copytree if link.is_dir() else shutil.copy, link.resolve()
        link.unlink()
        copy(target, link)
    shutil.copytree(built, open_path / "copied")
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout
    check(place, open_path / "copied", expected, load=f" {sys.version_info[0]}.{sys.version_info[1]}." in version)
