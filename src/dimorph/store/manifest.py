"""The manifest: what was built ahead of time into a directory.

People read it, `aot.verify` checks it, and a load of some values learns from it which entry of a wider set may serve
(`resolve.wider`); which artifact is the right one is decided by keys alone. It holds no path of the machine it was made
on and no time.
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
    """One artifact.

    Attributes:
        kind: `entry`, `case` or `device`.
        kernel: whose it is; the thread pool is an entry of its own.
        values: axis name -> value, of the axes that have one value.
        target: the target level; of device code, the architecture.
        key, toolchain_id: its address in the directory.
        compiler: in words.
        ffi_abi: the FFI ABI it was made for.
        glibc: the oldest glibc that it loads on; None: it needs none.
        driver: the CUDA version of the oldest NVIDIA driver that loads it; None: it is host code.
        bytes: the size of its files.
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
        """The row of an artifact; reads its object.

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
        """Where it is found."""
        return self.key, self.toolchain_id


@dataclass(frozen=True)
class Built:
    """One instantiation set, as it was built.

    Attributes:
        given: axis name -> values, of the axes whose values were not the declared ones. Building the same again
            takes the place of what was built before.
        values: axis name -> the values left; none for a choice axis that nobody fixed.
        specializations: every combination, axis name -> value.
        targets: the target levels.
        archs: the GPU architectures that were asked for; none: those that the kernel declares.
        debug: whether it was a debug build.
        cxxflags: the user's own flags.
        artifacts: the entry, the cases and what they need, for every target.
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
    """What a directory has of one kernel.

    Attributes:
        name: the kernel's name.
        entry, case, device, functions: as declared.
        axes: axis name -> what was declared of it.
        built: its instantiation sets.
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
    """What a directory has: `identity` of a kernel -> its record."""

    kernels: Mapping[str, Record]

    def rows(self) -> dict[tuple[str, str], Row]:
        """Every artifact once, by its address."""
        return {row.address: row for record in self.kernels.values() for row in rows(record).values()}

    def to_json(self) -> str:
        """The text of the file: sorted, so that equal manifests are equal bytes."""
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
        """Reads what `to_json` wrote.

        Raises:
            ArtifactCorrupt: it is something else, or another format version; the message starts with `where`.
        """
        try:
            raw = json.loads(text)
            if raw["format"] != FORMAT:
                raise ValueError(f"format: expected {FORMAT}, got {raw['format']!r}")
            return cls({name: _record(record) for name, record in raw["kernels"].items()})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ArtifactCorrupt(f"{where}: not a manifest ({type(error).__name__}: {error})") from error


def rows(record: Record) -> dict[tuple[str, str], Row]:
    """The artifacts of one kernel, each once, by address."""
    return {row.address: row for built in record.built for row in built.artifacts}


def identity(kernel: Declaration) -> str:
    """What a manifest calls a kernel: the file that declares it, relative to its root, and its name."""
    origin = kernel.origin
    place = origin.relative_to(kernel.root).as_posix() if kernel.root in origin.parents else origin.name
    return f"{place}:{kernel.name}"


def given(instantiations: InstantiationSet) -> dict[str, list[str]]:
    """Return axis name -> values, as text, of the axes without their declared values (a choice axis: that is fixed)."""
    beyond = instantiations.beyond_declared()
    return {axis.name: [axis.text(v) for v in left] for axis, left in instantiations.pairs() if axis.name in beyond}


def holding(built: Built, instantiations: InstantiationSet) -> InstantiationSet | None:
    """Return the set that was built, as the declaration has it now, if it holds another one.

    Of a variant that is declared nowhere only the name is known. An entry of several variants needs no more of them;
    the stand-in for its case cannot be compiled.
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
    """The record of a kernel as it is declared now."""
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
    """The manifest with a set just built, beside `others` of the same kernel that are kept."""
    ordered = sorted([*others, built], key=lambda one: sorted(one.given.items()))
    return Manifest({**manifest.kernels, identity(kernel): record_of(kernel, ordered)})


def read(directory: Path) -> Manifest:
    """The manifest of a directory; an empty one if it has none.

    Raises:
        ArtifactCorrupt: the file is no manifest.
        OSError: it cannot be read.
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
    """The fields of such a description.

    Raises:
        ValueError: a field is missing or too many.
    """
    wanted = {f.name for f in fields(kind)}
    if set(raw) != wanted:
        raise ValueError(f"{kind.__name__}: expected the fields {sorted(wanted)}, got {sorted(raw)}")
    return raw
