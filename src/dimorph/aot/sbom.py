"""A bill of materials (SBOM) of a store, in the form of CycloneDX, from what each artifact records."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dimorph import records
from dimorph.errors import ArtifactCorrupt, DimorphError
from dimorph.plan.key_record import OF_CODE, KeyRecord
from dimorph.resolve import reads
from dimorph.store import links
from dimorph.store.artifact import VERSION, Artifact
from dimorph.store.store import Store

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType

INSTALL = "pip install 'dimorph[sbom]'"


def describe(store: Store) -> str:
    """Return the bill of materials of a store as JSON text; equal stores have equal texts, but for its time.

    Each artifact is a library with its files and their checksums. It depends on the compiler, on the project's sources,
    on what else its compile read, and on the libraries that it needs, each a component of its own.

    Raises:
        DimorphError: the package cyclonedx-python-lib is not installed.
        ArtifactCorrupt: an artifact cannot be used.
        OSError: an artifact cannot be read.
    """
    try:
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        raise DimorphError(f"a bill of materials needs cyclonedx-python-lib: {INSTALL}") from error
    artifacts = list(_artifacts(store))
    return str(JsonV1Dot6(_bom(artifacts)).output_as_string(indent=1)) + "\n"


def _artifacts(store: Store) -> Iterator[Artifact]:
    for item in store.entries():
        if not isinstance(item, Artifact):
            raise ArtifactCorrupt(f"{item.path}: {item.error}") from item.error
        item.verify()
        yield item


def _bom(artifacts: list[Artifact]) -> Bom:
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    tool = Component(name="dimorph", version=VERSION, type=ComponentType.APPLICATION)
    newest = max((artifact.meta.created_at() for artifact in artifacts), default=None)
    bom = Bom(metadata=BomMetaData(tools=ToolRepository(components=[tool]), timestamp=newest))
    addresses = sorted(f"{artifact.meta.key}/{artifact.meta.toolchain_id}" for artifact in artifacts)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, " ".join(addresses))
    known: dict[str, Component] = {}
    for artifact in artifacts:
        component = _component(artifact)
        bom.components.add(component)
        bom.register_dependency(component, [known.setdefault(str(one.bom_ref), one) for one in _materials(artifact)])
    bom.components.update(known.values())
    return bom


def _component(artifact: Artifact) -> Component:
    """Return the component of an artifact, with its files inside."""
    from cyclonedx.model.component import ComponentType

    meta = artifact.meta
    values = ", ".join(f"{axis}={text}" for axis, text in meta.specialization.items())
    recorded = KeyRecord.recorded(artifact)
    properties = {
        **{name: str(getattr(meta, name)) for name in ("key", "toolchain_id", "kind", "target", "ffi_abi")},
        **{f"axis:{axis}": text for axis, text in meta.specialization.items()},
        "flags": " ".join(recorded.options or ()),
    }
    address = f"{meta.key}/{meta.toolchain_id}"
    files = [
        _made(name, ComponentType.FILE, f"{address}/{name}", sha256=record.sha256)
        for name, record in meta.files.items()
    ]
    name = f"{meta.kernel} {meta.kind}" + f" ({values})" * bool(values)
    return _made(name, ComponentType.LIBRARY, address, meta.key[:16], properties=properties, inside=files)


def _materials(artifact: Artifact) -> Iterator[Component]:
    """Yield the components of the compiler, the sources, and all else that an artifact was made from."""
    from cyclonedx.model.component import ComponentType

    meta = artifact.meta
    yield _made(meta.toolchain, ComponentType.APPLICATION, f"compiler {meta.toolchain_id}", meta.toolchain_id)
    for logical, checksum in (KeyRecord.recorded(artifact).sources or {}).items():
        name = logical.partition(":")[2]
        reference = f"source {logical} {checksum}"
        if checksum.startswith(OF_CODE):  # that of the file itself is not known
            properties = {"sha256-without-comments": checksum.removeprefix(OF_CODE)}
            yield _made(name, ComponentType.FILE, reference, properties=properties)
        else:
            yield _made(name, ComponentType.FILE, reference, sha256=checksum)
    if reads.NAME in meta.files:
        where = artifact.path / reads.NAME
        for path, checksum in reads.Reads.from_json(records.read(where), str(where)).files.items():
            yield _made(path, ComponentType.FILE, f"read {path} {checksum}", sha256=checksum)
    for link in links.read(artifact):
        properties = {"file": link.file, "found": link.how, **({"package": link.package} if link.package else {})}
        yield _made(link.library, ComponentType.LIBRARY, f"library {link}", link.version, properties=properties)


def _made(
    name: str,
    kind: ComponentType,
    reference: str,
    version: str = "",
    *,
    sha256: str = "",
    properties: dict[str, str] | None = None,
    inside: Iterable[Component] = (),
) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component

    return Component(
        name=name,
        type=kind,
        bom_ref=reference,
        version=version or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else [],
        properties=[Property(name=f"dimorph:{key}", value=value) for key, value in (properties or {}).items()],
        components=inside,
    )
