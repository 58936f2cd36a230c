"""The manifest: the list of the artifacts that were built ahead of time into a directory.

People read it, `aot.verify` checks it, and `resolve.wider` finds in it the entries of wider sets that may serve a load
of some of their values. The artifact itself is always chosen by its key. The manifest contains no time and no path of
the machine that it was made on.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from dimorph import _lazy, records
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.errors import ArtifactCorrupt, DeclarationError
from dimorph.store import links, mark
from dimorph.store.artifact import VERSION, Artifact, is_hex
from dimorph.store.links import Link
from dimorph.store.store import Store
from dimorph.toolchain import elf

FORMAT = 3
NAME = mark.MANIFEST
_VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}")


@dataclass(frozen=True)
class Row:
    """The description of one artifact.

    Attributes:
        kind: `entry`, `case` or `device`.
        kernel: the name of its kernel; the thread pool is an entry of a kernel of its own.
        values: axis name -> value, as text, of the axes that have one value.
        target: the target level; for device code, the architecture.
        key: the content key, 64 hex digits; with `toolchain_id`, the address in the directory.
        toolchain_id: the identity of the compiler, 16 hex digits.
        compiler: the name and version of the compiler, for people.
        ffi_abi: the FFI ABI that it was made for.
        glibc: the oldest glibc that it loads on, e.g. `2.17`; None: it requires none.
        driver: the CUDA version of the oldest NVIDIA driver that loads it, e.g. `13.0`; None for host code.
        bytes: the size of its files together.
        libraries: the shared libraries of others that it needs, and how each is found.
    """

    kind: str
    kernel: str
    values: Mapping[str, str]
    target: str
    key: str
    toolchain_id: str
    compiler: str
    ffi_abi: str
    glibc: str | None
    driver: str | None
    bytes: int
    libraries: list[Link] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not (is_hex(self.key, 64) and is_hex(self.toolchain_id, 16)):
            raise ValueError(f"an artifact's address: expected hex digits, got {self.key}/{self.toolchain_id}")
        for name in ("glibc", "driver"):
            version = getattr(self, name)
            if version is not None and not _VERSION.fullmatch(version):
                raise ValueError(f"{name}: expected a version, got {version!r}")
        if self.bytes < 0:
            raise ValueError(f"bytes: expected a size, got {self.bytes}")

    @classmethod
    def of(cls, artifact: Artifact) -> Row:
        """Return the row of an artifact; reads its object.

        Raises:
            LoadError, ToolchainError, OSError: see `elf.needs`.
        """
        meta = artifact.meta
        return cls(
            kind=meta.kind,
            kernel=meta.kernel,
            # An artifact that was found has them in this order, one that was just compiled in that of the declaration.
            values=dict(sorted(meta.specialization.items())),
            target=meta.target,
            key=meta.key,
            toolchain_id=meta.toolchain_id,
            compiler=meta.toolchain,
            ffi_abi=meta.ffi_abi,
            glibc=None if meta.device else elf.text(elf.needs(artifact.file).glibc),
            driver=meta.device.driver if meta.device else None,
            bytes=sum(record.size for record in meta.files.values()),
            libraries=links.read(artifact),
        )

    @property
    def address(self) -> tuple[str, str]:
        """The address of the artifact in the directory: content key and identity of the compiler."""
        return self.key, self.toolchain_id


@dataclass(frozen=True)
class Built:
    """One instantiation set, as it was built.

    Attributes:
        given: axis name -> values, of the axes whose values differed from the declared ones. A later build with the
            same `given` replaces this one.
        values: axis name -> its values; none for a choice axis whose value `choose` computes.
        specializations: every combination, axis name -> value.
        targets: the target levels.
        archs: the GPU architectures that were asked for; empty: those that the kernel declares.
        debug: True for a debug build.
        cxxflags: the user's flags.
        artifacts: the entry, the cases, their device code and the thread pool, for every target.
        partial: True if the combinations are those of a record of use, and not all that the values have.
    """

    given: Mapping[str, list[str]]
    values: Mapping[str, list[str]]
    specializations: list[dict[str, str]]
    targets: list[str]
    archs: list[str]
    debug: bool
    cxxflags: list[str]
    artifacts: list[Row]
    partial: bool = False


@dataclass(frozen=True)
class AxisRecord:
    """The declaration of an axis: kind, C++ names, declared values as text, and True for a choice axis."""

    kind: str
    binds: list[str]
    values: list[str]
    choice: bool


@dataclass(frozen=True)
class Record:
    """The record of one kernel: its declaration, and the sets that were built.

    Attributes:
        name: the kernel's name.
        place: the place of the file that declares it; see `place`.
        entry: the entry source, as declared.
        case: the case sources, as declared.
        device: the device sources, as declared.
        functions: the functions of the cases, as declared.
        axes: axis name -> its kind, C++ names and declared values, and whether it is a choice axis.
        built: the instantiation sets that were built.
    """

    name: str
    place: str
    entry: str
    case: list[str]
    device: list[str]
    functions: list[str]
    axes: Mapping[str, AxisRecord]
    built: list[Built]


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.

    Attributes:
        kernels: name -> record. The name is the `identity` of the kernel; if declarations in different places have the
            same one, all but the first have an `@` and their place added to it.
    """

    kernels: Mapping[str, Record]

    def name(self, kernel: Declaration, directory: Path) -> str:
        """Return the name of a kernel's record in the manifest of a directory, or the name that a new record gets."""
        wanted, here = identity(kernel), place(kernel, directory)
        there = [name for name, record in self.kernels.items() if _identity(name) == wanted and record.place == here]
        return there[0] if there else f"{wanted}@{here}" if wanted in self.kernels else wanted

    def names(self, kernel: Declaration) -> list[str]:
        """Return the names of the records of a kernel, wherever it was declared when they were made."""
        return [name for name in self.kernels if _identity(name) == identity(kernel)]

    def rows(self) -> dict[tuple[str, str], Row]:
        """Return the rows of all artifacts, each once, by address."""
        return {row.address: row for record in self.kernels.values() for row in rows(record).values()}

    def to_json(self) -> str:
        """Return the text of the file, sorted so that equal manifests are equal bytes."""
        every = self.rows().values()
        body = {
            "format": FORMAT,
            "dimorph": VERSION,
            "about": "Built ahead of time by Dimorph. Derived from the kernels' declarations; not to be edited.",
            "targets": sorted({row.target for row in every}),
            "compilers": sorted({row.compiler for row in every}),
            "ffi_abi": sorted({row.ffi_abi for row in every}),
            "glibc": elf.text(elf.newest([elf.parse(row.glibc) for row in every])),
            "driver": elf.text(elf.newest([elf.parse(row.driver) for row in every])),
            "libraries": sorted({str(link) for row in every for link in row.libraries}),
            "bytes": sum(row.bytes for row in every),
            "kernels": {name: asdict(record) for name, record in sorted(self.kernels.items())},
        }
        return json.dumps(body, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = NAME) -> Manifest:
        """Parse the text that `to_json` returned.

        Raises:
            ArtifactCorrupt: the text is no manifest or has another format version; the message starts with `where`.
        """
        with records.errors_in(f"{where}: not a manifest"):
            return records.parse(cls, {"kernels": _kernels(text, where)}, "manifest")


def other_version(store: Store) -> str | None:
    """Return what is to be said of a directory that another version of Dimorph built; None: this version built it.

    Its keys are other ones, because they cover the headers and the formats of Dimorph, so nothing in it is found.
    """
    try:
        text = _text(store)
        return None if text is None else _other_version(text)
    except (OSError, ArtifactCorrupt):
        return None  # whoever needs the manifest reports that


@lru_cache(maxsize=4)
def _other_version(text: bytes) -> str | None:
    raw = records.decode(text, NAME)
    return _other(raw) if isinstance(raw, dict) and raw.get("dimorph", VERSION) != VERSION else None


def _other(raw: Mapping[str, object]) -> str:
    made = str(raw["dimorph"])[:40]
    return f"built by Dimorph {made}, and this is {VERSION}: install {made}, or build it again with {VERSION}"


def rows(record: Record) -> dict[tuple[str, str], Row]:
    """Return the rows of one kernel's artifacts, each once, by address."""
    return {row.address: row for built in record.built for row in built.artifacts}


def identity(kernel: Declaration) -> str:
    """Return the name of a kernel in manifests: the file that declares it, with its package, and the kernel's name.

    The file of a module outside packages is given relative to the kernel's root.
    """
    origin, top = kernel.origin, kernel.origin.parent
    while os.path.exists(top / "__init__.py") and top != top.parent:  # noqa: PTH110 - False without permission
        top = top.parent
    if top == origin.parent and kernel.root in origin.parents:
        top = kernel.root
    return f"{origin.relative_to(top).as_posix()}:{kernel.name}"


def place(kernel: Declaration, directory: Path) -> str:
    """Return 16 hex digits that tell apart files that declare kernels of one identity.

    They are made from the path that leads from the directory of the manifest to the file, so they stay when both move.
    """
    way = os.path.relpath(kernel.origin.resolve(), directory)
    return _lazy.hashlib.sha256(os.fsencode(way)).hexdigest()[:16]


def _identity(name: str) -> str:
    start, _, end = name.rpartition("@")
    return start if start and is_hex(end, 16) else name


def given(instantiations: InstantiationSet) -> dict[str, list[str]]:
    """Return axis name -> values, as text, of the axes whose values differ from the declared ones.

    Of the choice axes these are the ones with a fixed value.
    """
    beyond = instantiations.beyond_declared()
    return {axis.name: [axis.text(v) for v in left] for axis, left in instantiations.pairs() if axis.name in beyond}


def holding(built: Mapping[str, list[str]], instantiations: InstantiationSet) -> InstantiationSet | None:
    """Return the set of the values that were built, as it is declared now, if it contains `instantiations`; else None.

    Of a variant that is not declared any more only the name is known. That suffices for an entry of several variants;
    a case of such a variant cannot be compiled.
    """
    kernel, wider = instantiations.kernel, {}
    try:
        for axis, left in instantiations.pairs():
            texts = built.get(axis.name, [])
            known = {axis.text(value): value for value in (*axis.values, *left)}
            if bool(left) != bool(texts) or not {axis.text(value) for value in left} <= set(texts):
                return None
            if texts:
                wider[axis.name] = [known[text] if text in known else axis.named(text, kernel.root) for text in texts]
        return instantiate(kernel, wider)
    except DeclarationError:  # a value that is not accepted any more
        return None


def record_of(kernel: Declaration, directory: Path, built: list[Built]) -> Record:
    """Return the record of a kernel as it is declared now, with the given sets, for the manifest of a directory."""
    axes = {
        axis.name: AxisRecord(
            kind=axis.kind,
            binds=list(axis.binds),
            values=[axis.text(value) for value in axis.values],
            choice=axis.choose is not None,
        )
        for axis in kernel.axes
    }
    sources = (list(kernel.case), list(kernel.device))
    return Record(kernel.name, place(kernel, directory), kernel.entry, *sources, list(kernel.functions), axes, built)


def with_built(manifest: Manifest, kernel: Declaration, directory: Path, others: list[Built], built: Built) -> Manifest:
    """Return the manifest of a directory with `built` added; of the kernel's earlier sets only `others` are kept."""
    ordered = sorted([*others, built], key=lambda one: (sorted(one.given.items()), one.partial))
    return Manifest({**manifest.kernels, manifest.name(kernel, directory): record_of(kernel, directory, ordered)})


def sets(store: Store, kernel: Declaration) -> list[Mapping[str, list[str]]]:
    """Return the values of each set of a kernel that a directory's manifest lists: axis name -> values, as text.

    It reads no more than that: a load asks for it, and the rest may describe thousands of artifacts.

    Raises:
        ArtifactCorrupt, StoreRefused, OSError: as for `read`.
    """
    text = _text(store)
    found = {} if text is None else _sets(text, str(store.root / NAME))
    return [values for name, built in found.items() if _identity(name) == identity(kernel) for values in built]


@lru_cache(maxsize=4)
def _sets(text: bytes, where: str) -> dict[str, list[Mapping[str, list[str]]]]:
    with records.errors_in(f"{where}: not a manifest"):
        try:
            return {
                name: [records.parse(Mapping[str, list[str]], one["values"], "values") for one in record["built"]]
                for name, record in _kernels(text, where).items()
            }
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"expected kernels with their sets, got {error!r}") from error


def _kernels(text: str | bytes, where: str) -> Any:
    """Return the part of a manifest that describes its kernels, as JSON has it.

    Raises:
        ValueError: the manifest has another format.
    """
    raw = records.decode(text, where)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        given = raw.get("format") if isinstance(raw, dict) else raw
        other = f"; {_other(raw)}" if isinstance(raw, dict) and raw.get("dimorph", VERSION) != VERSION else ""
        raise ValueError(f"format: expected {FORMAT}, got {reprlib.repr(given)}{other}")
    return raw.get("kernels")


def read(directory: Store | Path) -> Manifest:
    """Read the manifest of a directory that was built ahead of time; return an empty one if it has none.

    Args:
        directory: the store of the directory; or the directory, which is then checked as a shared store is.

    Raises:
        ArtifactCorrupt: the file is no manifest.
        StoreRefused: an untrusted user could have written the store or the file.
        OSError: the file cannot be read.
    """
    store = directory if isinstance(directory, Store) else Store(directory, writable=False, private=False)
    text = _text(store)
    return Manifest({}) if text is None else Manifest.from_json(text, str(store.root / NAME))


def _text(store: Store) -> bytes | None:
    """Return the content of the manifest of a directory; None if it has none."""
    try:
        store.refresh()
        opener = store.opener()
        return records.read(store.root / NAME, opener) if opener else None
    except FileNotFoundError:
        return None
