"""Imports run from the outer ring inwards only, and some things are the business of one module alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import dimorph as dm

PACKAGE = Path(dm.__file__).parent

# Inner to outer. Modules of one ring may import each other; a package stands for all its modules.
RINGS = [
    ["errors", "late", "logs", "settings", "driver"],
    ["variant", "axes", "kernel"],
    ["header", "scan", "digest"],
    ["artifact", "elf", "manifest", "trust", "locks", "workspace", "store"],
    ["toolchain"],
    ["plan", "inputs"],
    ["places"],
    ["build"],
    ["resolve"],
    ["ffi", "arrays", "streams", "device", "library"],
    ["module"],
    ["dimorph"],  # the public names
    ["attention"],
    ["discover", "aot", "compare", "explain", "doctor", "ide"],
    ["wheel", "show", "commands", "cli", "demo", "__main__"],
]
RING = {name: number for number, ring in enumerate(RINGS) for name in ring}

# (importer, imported) -> why it may be.
ALLOWED = {
    ("kernel", "module"): "`Kernel.load` is what a user calls; imported when it is called, and for its annotation",
    ("kernel", "aot"): "as for `load`",
}


@dataclass(frozen=True)
class Import:
    """An import of one of our own modules, wherever it stands in the file."""

    importer: str
    imported: str
    names: tuple[str, ...]
    place: str
    late: bool


def _modules() -> dict[str, Path]:
    """Dotted name inside the package -> file."""
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
                yield Import(module, node.module.removeprefix("dimorph."), names, place, late)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_MODULES = _modules()
ALL = [found for name, file in _MODULES.items() for found in _imports(file, name)]


def _top(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_has_its_ring() -> None:
    assert {_top(module) for module in _MODULES} == set(RING)


def test_imports_run_inwards_only() -> None:
    wrong = [
        f"{found.place}: {found.importer} imports {found.imported}, which is further out"
        for found in ALL
        if RING[_top(found.imported)] > RING[_top(found.importer)]
        and (_top(found.importer), _top(found.imported)) not in ALLOWED
        and found.importer != "dimorph"
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_the_public_package_from_inside() -> None:
    wrong = [
        f"{found.place}: {found.importer} imports from dimorph itself"
        for found in ALL
        if found.imported == "dimorph" and RING[_top(found.importer)] < RING["dimorph"]
    ]
    assert not wrong, "\n".join(wrong)


def test_what_is_allowed_is_needed_and_late() -> None:
    for importer, imported in ALLOWED:
        found = [one for one in ALL if (_top(one.importer), _top(one.imported)) == (importer, imported)]
        if imported == "aot" and not found:
            continue
        assert found, f"{importer} no longer imports {imported}"
        assert all(one.late or _in_type_checking(one) for one in found)


def _in_type_checking(found: Import) -> bool:
    file, _, line = found.place.rpartition(":")
    tree = ast.parse(Path(file).read_text())
    blocks = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return any(block.lineno <= int(line) <= (block.end_lineno or 0) for block in blocks)


def test_the_modules_of_a_ring_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for found in ALL:
        if not found.late and not _in_type_checking(found) and found.importer != found.imported:
            graph.setdefault(found.importer, set()).add(found.imported)
    seen: dict[str, bool] = {}

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"imports in a circle: {' -> '.join((*path, module))}"
        if module not in seen:
            for next_one in sorted(graph.get(module, ())):
                walk(next_one, (*path, module))
            seen[module] = True

    for module in graph:
        walk(module, ())


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
    """Every dotted name that a module's code mentions, and the modules that it imports."""
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


@pytest.mark.parametrize("module", sorted(_MODULES))
def test_nothing_is_unpickled_and_nothing_evaluated(module: str) -> None:
    assert not _uses(module) & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    calls = [n for n in ast.walk(ast.parse(_MODULES[module].read_text())) if isinstance(n, ast.Call)]
    assert not [n for n in calls if isinstance(n.func, ast.Name) and n.func.id in ("eval", "exec", "compile")]


INNER = [name for name in _MODULES if RING[_top(name)] <= RING["dimorph"]]


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
    long = {str(file): count for file in _MODULES.values() if (count := len(file.read_text().splitlines())) > 420}
    long |= {
        str(file): count
        for file in PACKAGE.rglob("*")
        if file.suffix in (".h", ".cc", ".cuh", ".cu") and (count := len(file.read_text().splitlines())) > 800
    }
    assert not long, "one job a file"
