"""The manifest: the list of the artifacts that were built ahead of time into a directory.

People read it, `aot.verify` checks it, and `resolve.wider` finds in it the entries of wider sets that may serve a load
of some of their values. The artifact itself is always chosen by its key. The manifest contains no time and no path of
the machine that it was made on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.errors import ArtifactCorrupt, DeclarationError
from dimorph.store.artifact import Artifact, is_hex
from dimorph.toolchain import elf

FORMAT = 2
NAME = "manifest.json"


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
            values=dict(meta.specialization),
            target=meta.target,
            key=meta.key,
            toolchain_id=meta.toolchain_id,
            compiler=meta.toolchain,
            ffi_abi=meta.ffi_abi,
            glibc=None if meta.device else elf.text(elf.needs(artifact.file).glibc),
            driver=meta.device.driver if meta.device else None,
            bytes=sum(record.size for record in meta.files.values()),
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
    """

    given: Mapping[str, list[str]]
    values: Mapping[str, list[str]]
    specializations: list[dict[str, str]]
    targets: list[str]
    archs: list[str]
    debug: bool
    cxxflags: list[str]
    artifacts: list[Row]


@dataclass(frozen=True)
class Record:
    """The record of one kernel: its declaration, and the sets that were built.

    Attributes:
        name: the kernel's name.
        entry: the entry source, as declared.
        case: the case sources, as declared.
        device: the device sources, as declared.
        functions: the functions of the cases, as declared.
        axes: axis name -> its kind, C++ names and declared values, and whether it is a choice axis.
        built: the instantiation sets that were built.
    """

    name: str
    entry: str
    case: list[str]
    device: list[str]
    functions: list[str]
    axes: Mapping[str, Mapping[str, Any]]
    built: list[Built]


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.

    Attributes:
        kernels: `identity` of a kernel -> its record.
    """

    kernels: Mapping[str, Record]

    def rows(self) -> dict[tuple[str, str], Row]:
        """Return the rows of all artifacts, each once, by address."""
        return {row.address: row for record in self.kernels.values() for row in rows(record).values()}

    def to_json(self) -> str:
        """Return the text of the file, sorted so that equal manifests are equal bytes."""
        every = self.rows().values()
        body = {
            "format": FORMAT,
            "about": "Built ahead of time by Dimorph. Derived from the kernels' declarations; not to be edited.",
            "targets": sorted({row.target for row in every}),
            "compilers": sorted({row.compiler for row in every}),
            "ffi_abi": sorted({row.ffi_abi for row in every}),
            "glibc": elf.text(elf.newest([elf.parse(row.glibc) for row in every])),
            "driver": elf.text(elf.newest([elf.parse(row.driver) for row in every])),
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
        try:
            raw = json.loads(text)
            if raw["format"] != FORMAT:
                raise ValueError(f"format: expected {FORMAT}, got {raw['format']!r}")
            return cls({name: _record(record) for name, record in raw["kernels"].items()})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ArtifactCorrupt(f"{where}: not a manifest ({type(error).__name__}: {error})") from error


def rows(record: Record) -> dict[tuple[str, str], Row]:
    """Return the rows of one kernel's artifacts, each once, by address."""
    return {row.address: row for built in record.built for row in built.artifacts}


def identity(kernel: Declaration) -> str:
    """Return the name of a kernel in manifests: the file that declares it, relative to its root, and its name."""
    origin = kernel.origin
    file = origin.relative_to(kernel.root).as_posix() if kernel.root in origin.parents else origin.name
    return f"{file}:{kernel.name}"


def given(instantiations: InstantiationSet) -> dict[str, list[str]]:
    """Return axis name -> values, as text, of the axes whose values differ from the declared ones.

    Of the choice axes these are the ones with a fixed value.
    """
    beyond = instantiations.beyond_declared()
    return {axis.name: [axis.text(v) for v in left] for axis, left in instantiations.pairs() if axis.name in beyond}


def holding(built: Built, instantiations: InstantiationSet) -> InstantiationSet | None:
    """Return the set that was built, under the present declaration, if it contains `instantiations`; else None.

    Of a variant that is not declared any more only the name is known. That suffices for an entry of several variants;
    a case of such a variant cannot be compiled.
    """
    kernel, wider = instantiations.kernel, {}
    try:
        for axis, left in instantiations.pairs():
            texts = built.values.get(axis.name, [])
            known = {axis.text(value): value for value in (*axis.values, *left)}
            if bool(left) != bool(texts) or not {axis.text(value) for value in left} <= set(texts):
                return None
            if texts:
                wider[axis.name] = [known[text] if text in known else axis.named(text, kernel.root) for text in texts]
        return instantiate(kernel, wider)
    except DeclarationError:  # a value that is not accepted any more
        return None


def record_of(kernel: Declaration, built: list[Built]) -> Record:
    """Return the record of a kernel as it is declared now, with the given sets."""
    axes = {
        axis.name: {
            "kind": axis.kind,
            "binds": list(axis.binds),
            "values": [axis.text(value) for value in axis.values],
            "choice": axis.choose is not None,
        }
        for axis in kernel.axes
    }
    sources = (list(kernel.case), list(kernel.device))
    return Record(kernel.name, kernel.entry, *sources, list(kernel.functions), axes, built)


def with_built(manifest: Manifest, kernel: Declaration, others: list[Built], built: Built) -> Manifest:
    """Return the manifest with `built` added to a kernel; of the kernel's earlier sets only `others` are kept."""
    ordered = sorted([*others, built], key=lambda one: sorted(one.given.items()))
    return Manifest({**manifest.kernels, identity(kernel): record_of(kernel, ordered)})


def read(directory: Path) -> Manifest:
    """Read the manifest of a directory; return an empty one if the directory has none.

    Raises:
        ArtifactCorrupt: the file is no manifest.
        OSError: the file cannot be read.
    """
    path = directory / NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Manifest({})
    return Manifest.from_json(text, str(path))


def _record(raw: dict[str, Any]) -> Record:
    built = [_built(item) for item in raw["built"]]
    return Record(**{**_fields(Record, raw), "built": built})


def _built(raw: dict[str, Any]) -> Built:
    found = [Row(**_fields(Row, item)) for item in raw["artifacts"]]
    for row in found:
        if not (is_hex(row.key, 64) and is_hex(row.toolchain_id, 16)):
            raise ValueError(f"an artifact's address: expected hex digits, got {row.key}/{row.toolchain_id}")
    return Built(**{**_fields(Built, raw), "artifacts": found})


def _fields(kind: type[Any], raw: dict[str, Any]) -> dict[str, Any]:
    """Return `raw` if its keys are the fields of the dataclass `kind`.

    Raises:
        ValueError: a field is missing or unknown.
    """
    wanted = {f.name for f in fields(kind)}
    if set(raw) != wanted:
        raise ValueError(f"{kind.__name__}: expected the fields {sorted(wanted)}, got {sorted(raw)}")
    return raw
