"""Check a directory that was built ahead of time: artifacts against its manifest, manifest against the sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dimorph.aot.needs import needs
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import instantiate
from dimorph.errors import DimorphError, counted
from dimorph.plan.key import FFI_ABI
from dimorph.runtime.library import unloadable
from dimorph.settings import current
from dimorph.store import manifest
from dimorph.store.layers import built_store
from dimorph.store.manifest import Built, Manifest, Row
from dimorph.store.store import Broken, Store
from dimorph.toolchain import elf


@dataclass(frozen=True)
class Coverage:
    """The result of checking a directory that was built ahead of time.

    Attributes:
        out: the directory.
        covered: for each instantiation set whose keys match the present sources, a line that describes it.
        problems: for each set, kernel or artifact that is outdated, missing, damaged or not in the manifest, a line.
    """

    out: Path
    covered: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if the directory holds all artifacts of its manifest, intact and up to date, and no others."""
        return not self.problems

    def __repr__(self) -> str:
        counts = f"{len(self.covered)} sets covered, {len(self.problems)} problems"
        return f"<dimorph.aot.Coverage {counts}, in {self.out}>"

    def __str__(self) -> str:
        return "\n".join([*self.covered, *(f"problem: {line}" for line in self.problems)])


def verify(kernels: Iterable[Declaration], out: Path | str) -> Coverage:
    """Check a directory against its manifest, and the manifest against the present sources and declarations.

    Every checksum and every key is computed anew, and every object that this CPU runs is loaded; no compiler is needed.

    Args:
        kernels: the declared kernels that the directory should hold.
        out: the directory.

    Raises:
        ArtifactCorrupt: the manifest cannot be parsed.
        OSError: the directory cannot be read.
    """
    given = list(kernels)
    store = built_store(Path(out), [kernel.root for kernel in given], writable=False)
    recorded = manifest.read(store)
    known = {name: kernel for kernel in given for name in _names(kernel, store.root, recorded)}
    problems = [*_check_artifacts(store, recorded), *_check_unlisted(store, recorded)]
    covered = []
    for name in sorted({*known, *recorded.kernels}):
        if name not in known:
            problems.append(f"{name}: the manifest lists it, but no such kernel is declared")
            continue
        if name not in recorded.kernels:
            problems.append(f"{name}: nothing was built for this kernel")
            continue
        for built in recorded.kernels[name].built:
            if reason := outdated(known[name], built):
                problems.append(f"{name}{brackets(built.given)}: {reason}")
            else:
                covered.append(_line(name, known[name], built))
    return Coverage(store.root, tuple(covered), tuple(problems))


def _names(kernel: Declaration, directory: Path, recorded: Manifest) -> list[str]:
    """Return the names of the records to compare with a kernel: its own, or all of its identity if the two moved."""
    own = recorded.name(kernel, directory)
    return [own] if own in recorded.kernels else recorded.names(kernel) or [own]


def outdated(kernel: Declaration, built: Built) -> str | None:
    """Return why a built set no longer matches its declaration and sources; None if it does or cannot be compared."""
    if _undeclared(kernel, built):
        return None
    config = replace(current(), debug=built.debug, cxxflags=tuple(built.cxxflags))
    try:
        now = instantiate(kernel, built.given)
        if now.texts() != built.values:
            return f"the declaration now has {_texts(now.texts())}; the set was built for {_texts(built.values)}"
        if built.partial:
            now = replace(now, only=tuple(one.values for one in now if one.texts() in built.specializations))
        keys = needs(now, built.targets, built.archs, config).keys()
    except DimorphError as error:
        return str(error)
    other = [row for row in built.artifacts if row.key not in keys]
    if other or len(built.artifacts) != len(keys):
        return f"{len(other)} of its {counted(len(built.artifacts), 'artifact')} do not match the present sources"
    return None


def _undeclared(kernel: Declaration, built: Built) -> list[str]:
    """Return the values of a set that cannot be found by their texts: variants that the kernel does not declare."""
    return [text for axis in kernel.axes for text in built.values.get(axis.name, ()) if not axis.is_found_by(text)]


def _check_artifacts(store: Store, recorded: Manifest) -> Iterator[str]:
    for (key, toolchain_id), row in recorded.rows().items():
        label = f"{row.kernel} {row.kind}{brackets(row.values)} for {row.target} ({key[:12]})"
        try:
            artifact = store.find(key, toolchain_id)
        except OSError as error:
            yield f"{label}: {error}"
            continue
        if artifact is None:
            yield f"{label}: it is missing or corrupt: build it again into {store.root}"
        elif Row.of(artifact) != row:
            yield f"{label}: its meta.json differs from the manifest"
        elif row.ffi_abi != FFI_ABI:
            yield f"{label}: it was made for {row.ffi_abi}, this process has {FFI_ABI}"
        elif row.kind != "device" and (why := unloadable(artifact)):
            yield f"{label}: it cannot be loaded: {why}"


def _check_unlisted(store: Store, recorded: Manifest) -> Iterator[str]:
    listed = recorded.rows()
    for item in store.entries():
        if (item.path.parent.name, item.path.name) not in listed:
            yield str(item.error) if isinstance(item, Broken) else f"{item.path}: it is not in the manifest"


def _line(name: str, kernel: Declaration, built: Built) -> str:
    size = sum(row.bytes for row in built.artifacts)
    floor = elf.text(elf.newest([elf.parse(row.glibc) for row in built.artifacts]))
    variants = ", ".join(_undeclared(kernel, built))
    unsure = f" (not compared with the sources: variant {variants} is not declared)" if variants else ""
    return (
        f"{name}{brackets(built.given)}: {counted(len(built.specializations), 'specialization')} for "
        f"{', '.join(built.targets)}: {counted(len(built.artifacts), 'artifact')}, {size / 1000:.0f} kB, "
        f"glibc {floor or 'any'}{unsure}"
    )


def brackets(values: Mapping[str, str | list[str]]) -> str:
    return f" ({_texts(values)})" if values else ""


def _texts(values: Mapping[str, str | list[str]]) -> str:
    return ", ".join(f"{name}={v if isinstance(v, str) else '|'.join(v) or 'chosen'}" for name, v in values.items())
