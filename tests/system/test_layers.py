"""The layers of the package are its folders: imports run downwards only, and some calls belong to one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import dimorph as dm

PACKAGE = Path(dm.__file__).parent
PROJECT = Path(__file__).resolve().parent
while not (PROJECT / "CONTRIBUTING.md").is_file():
    PROJECT = PROJECT.parent

# The layers from the lowest up: folders, and modules beside the folders. CONTRIBUTING's table describes each.
FLOORS = [
    "errors",
    "_lazy",
    "_fork",
    "records",
    "_cxxflags",
    "settings",
    "declare",
    "source",
    "toolchain",
    "store",
    "plan",
    "resolve",
    "runtime",
    "aot",
    "kernel",
    "dimorph",  # the public names
    "attention",
    "wheel",
    "demo",
    "cli",
    "__main__",
]
FLOOR = {name: number for number, name in enumerate(FLOORS)}


@dataclass(frozen=True)
class Import:
    """An import of a module of the package, anywhere in a file."""

    importer: str
    imported: str
    names: tuple[str, ...]
    place: str
    late: bool


def _modules() -> dict[str, Path]:
    """Return dotted name inside the package -> file."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__") or "dimorph"] = file
    return found


def _imports(file: Path, module: str) -> Iterator[Import]:
    tree = ast.parse(file.read_text(), str(file))
    inside = {
        id(node) for function in ast.walk(tree) if isinstance(function, _FUNCTIONS) for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        place, late = f"{file}:{getattr(node, 'lineno', 0)}", id(node) in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "dimorph":
                    yield Import(module, alias.name.partition(".")[2] or "dimorph", (), place, late)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place}: a relative import"
            names = tuple(alias.name for alias in node.names)
            if node.module == "dimorph":
                for name in names:
                    is_module = name in _MODULES
                    yield Import(module, name if is_module else "dimorph", () if is_module else (name,), place, late)
            elif node.module and node.module.startswith("dimorph."):
                inner = node.module.removeprefix("dimorph.")
                found = [f"{inner}.{name}" for name in names if f"{inner}.{name}" in _MODULES]
                for imported in found or [inner]:
                    yield Import(module, imported, names, place, late)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_MODULES = _modules()
ALL = [found for name, file in _MODULES.items() for found in _imports(file, name)]


def _top(module: str) -> str:
    """Return the folder of a module, or the module itself if it is beside the folders."""
    return module.partition(".")[0]


def test_every_module_has_its_floor() -> None:
    assert {_top(module) for module in _MODULES} == set(FLOOR)


def test_imports_run_downwards_only() -> None:
    """Late imports and imports for annotations count too."""
    wrong = [
        f"{found.place}: {found.importer} imports {found.imported}, which is further up"
        for found in ALL
        if FLOOR[_top(found.imported)] > FLOOR[_top(found.importer)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Late imports and imports for annotations count too."""
    graph: dict[str, set[str]] = {}
    for found in ALL:
        if found.importer != found.imported:
            graph.setdefault(found.importer, set()).add(found.imported)
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"imports in a circle: {' -> '.join((*path[path.index(module) :], module))}"
        if module not in done:
            for next_one in sorted(graph.get(module, ())):
                walk(next_one, (*path, module))
            done.add(module)

    for module in graph:
        walk(module, ())


def test_the_package_itself_holds_few_modules() -> None:
    modules = [name for name, file in _MODULES.items() if file.parent == PACKAGE]
    assert len(modules) <= 10, modules


def test_contributing_lists_the_floors() -> None:
    """The table of CONTRIBUTING has a row for each folder and each module beside them, from the lowest up."""
    section = (PROJECT / "CONTRIBUTING.md").read_text("utf-8").partition("## Layout")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [name.strip(" `/").removesuffix(".py") for row in rows for name in row.split(",")]
    assert [name for name in named if name in FLOOR] == [name for name in FLOORS if name not in ("dimorph", "__main__")]


def test_no_module_imports_the_public_package_from_inside() -> None:
    wrong = [
        f"{found.place}: {found.importer} imports from dimorph itself"
        for found in ALL
        if found.imported == "dimorph" and FLOOR[_top(found.importer)] < FLOOR["dimorph"]
    ]
    assert not wrong, "\n".join(wrong)


def test_attention_uses_public_names_only() -> None:
    found = [one for one in ALL if _top(one.importer) == "attention" and _top(one.imported) != "attention"]
    assert found
    for one in found:
        assert one.imported == "dimorph", f"{one.place}: imports {one.imported}, which is not public"
        assert set(one.names) <= set(dm.__all__), one.place


def test_every_public_name_is_there_and_listed_in_order() -> None:
    assert list(dm.__all__) == sorted(dm.__all__, key=lambda name: (name.islower(), name))
    for name in dm.__all__:
        assert hasattr(dm, name), name


def _uses(module: str) -> set[str]:
    """Return every dotted name that the code of a module mentions, and the modules that it imports."""
    tree = ast.parse(_MODULES[module].read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


STARTERS = {"subprocess", "multiprocessing", "pty", "os.system", "os.popen", "os.fork", "os.forkpty", "asyncio"}


@pytest.mark.parametrize("module", sorted(_MODULES))
def test_only_one_module_starts_processes(module: str) -> None:
    starts = {
        name
        for name in _uses(module)
        if name in STARTERS or name.startswith(("os.exec", "os.spawn", "os.posix_spawn", "asyncio.create_subprocess"))
    }
    assert bool(starts) == (module == "toolchain.process"), starts


@pytest.mark.parametrize("module", sorted(_MODULES))
def test_only_the_settings_read_the_environment(module: str) -> None:
    reads = {
        name
        for name in _uses(module)
        if name.startswith(("os.environ", "os.getenv", "os.getenvb", "os.putenv", "os.path.expand", "os.unsetenv"))
    }
    assert bool(reads) == (module == "settings"), reads


# Makes functions with the parameters of C++, from names and literals alone (tests/runtime/test_signatures.py).
_COMPILES = "runtime.functions"


@pytest.mark.parametrize("module", sorted(_MODULES))
def test_nothing_is_unpickled_and_nothing_evaluated(module: str) -> None:
    assert not _uses(module) & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    calls = [n for n in ast.walk(ast.parse(_MODULES[module].read_text())) if isinstance(n, ast.Call)]
    found = [n.func.id for n in calls if isinstance(n.func, ast.Name) and n.func.id in ("eval", "exec", "compile")]
    assert found == (["exec", "compile"] if module == _COMPILES else [])


INNER = [name for name in _MODULES if FLOOR[_top(name)] <= FLOOR["dimorph"]]


@pytest.mark.parametrize("module", sorted(INNER))
def test_heavy_packages_are_imported_late_or_not_at_all(module: str) -> None:
    tree = ast.parse(_MODULES[module].read_text())
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, _FUNCTIONS) for n in ast.walk(f)}
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.partition(".")[0] not in ("torch", "numpy", "click", "rich", "ml_dtypes"), f"{module}: {name}"
            assert name.partition(".")[0] != "tvm_ffi" or id(node) in inside, f"{module}: {name} at the top"


def test_files_stay_short() -> None:
    long = {str(file): count for file in _MODULES.values() if (count := len(file.read_text().splitlines())) > 400}
    long |= {
        str(file): count
        for file in PACKAGE.rglob("*")
        if file.suffix in (".h", ".cc", ".cuh", ".cu") and (count := len(file.read_text().splitlines())) > 800
    }
    assert not long, "one job a file"
