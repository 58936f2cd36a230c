"""Check a directory that was built ahead of time against its manifest, and that against the sources there are now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dimorph.aot.needs import needs
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import instantiate
from dimorph.errors import DimorphError
from dimorph.plan.key import FFI_ABI
from dimorph.settings import current
from dimorph.store import manifest
from dimorph.store.manifest import Built, Manifest, Row
from dimorph.store.store import Broken, Store
from dimorph.toolchain import elf


@dataclass(frozen=True)
class Coverage:
    """What a directory holds, and what is wrong with it.

    Attributes:
        out: the directory.
        covered: a line for each set of specializations whose keys are those of the sources that are there now.
        problems: a line for everything else.
    """

    out: Path
    covered: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that the manifest promises is there, whole and up to date, and nothing else."""
        return not self.problems

    def __str__(self) -> str:
        return "\n".join([*self.covered, *(f"problem: {line}" for line in self.problems)])


def verify(kernels: Iterable[Declaration], out: Path) -> Coverage:
    """Checks a directory against its manifest, and the manifest against the sources and declarations there are now.

    Recomputes every key, which takes no compiler, and every checksum.

    Raises:
        ArtifactCorrupt: the manifest cannot be read.
        OSError: the directory cannot be read.
    """
    store = Store(out, writable=False, private=False)
    recorded = manifest.read(store.root)
    known = {manifest.identity(kernel): kernel for kernel in kernels}
    problems = [*_check_artifacts(store, recorded), *_check_unlisted(store, recorded)]
    covered = []
    for name in sorted({*known, *recorded.kernels}):
        if name not in known:
            problems.append(f"{name}: it is in the manifest, but no such kernel is declared")
            continue
        if name not in recorded.kernels:
            problems.append(f"{name}: nothing was built of it")
            continue
        for built in recorded.kernels[name].built:
            if reason := outdated(known[name], built):
                problems.append(f"{name}{brackets(built.given)}: {reason}")
            else:
                covered.append(_line(name, known[name], built))
    return Coverage(store.root, tuple(covered), tuple(problems))


def outdated(kernel: Declaration, built: Built) -> str | None:
    """Why a set as it was built is not what the declaration and the sources make now; None: it is, or none can say."""
    if _undeclared(kernel, built):
        return None
    config = replace(current(), debug=built.debug, cxxflags=tuple(built.cxxflags))
    try:
        now = instantiate(kernel, built.given)
        if now.texts() != built.values:
            return f"the declaration now has {_texts(now.texts())}; built was {_texts(built.values)}"
        keys = needs(now, built.targets, built.archs, config).keys()
    except DimorphError as error:
        return str(error)
    other = [row for row in built.artifacts if row.key not in keys]
    if other or len(built.artifacts) != len(keys):
        return f"{len(other)} of its {len(built.artifacts)} artifacts are of other sources than those there are now"
    return None


def _undeclared(kernel: Declaration, built: Built) -> list[str]:
    """Return the values of a set that cannot be found again from their texts: variants that nobody declares."""
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
            yield f"{label}: it is missing or corrupt"
        elif Row.of(artifact) != row:
            yield f"{label}: its description is not what the manifest says"
        elif row.ffi_abi != FFI_ABI:
            yield f"{label}: it was made for {row.ffi_abi}, this is {FFI_ABI}"


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
        f"{name}{brackets(built.given)}: {len(built.specializations)} specializations for "
        f"{', '.join(built.targets)}: {len(built.artifacts)} artifacts, {size / 1000:.0f} kB, "
        f"glibc {floor or 'any'}{unsure}"
    )


def brackets(values: Mapping[str, str | list[str]]) -> str:
    return f" ({_texts(values)})" if values else ""


def _texts(values: Mapping[str, str | list[str]]) -> str:
    return ", ".join(f"{name}={v if isinstance(v, str) else '|'.join(v) or 'chosen'}" for name, v in values.items())
