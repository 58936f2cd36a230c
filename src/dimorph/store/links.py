"""Records of the shared libraries of others that an object needs, and how each is found where it is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from dimorph import _lazy, records
from dimorph.store.artifact import Artifact

# The name of the record's file in an artifact; objects that need no such library have none.
NAME = "links.json"


@dataclass(frozen=True)
class Link:
    """A shared library that an object needs.

    Attributes:
        library: the name of the dependency.
        version: its version where the object was linked; empty: unknown.
        file: the name by which the object needs it, e.g. `libz.so.1`.
        how: `system`: the dynamic loader finds it; `bundled`: the artifact holds a copy; `required`: a Python package
            has it.
        package: the Python package, by the name that pip knows; empty: none.
        path: the path of the file, relative to the directory that the package is installed in.
        install: the command that installs it, for messages; empty: unknown.
    """

    library: str
    version: str
    file: str
    how: str
    package: str = ""
    path: str = ""
    install: str = ""

    def __str__(self) -> str:
        return f"{self.library} {self.version}".rstrip() + f" ({self.file}, {self.how})"


def to_json(links: Iterable[Link]) -> str:
    """Return the text of the record's file."""
    return _lazy.json.dumps([asdict(link) for link in links], indent=1, sort_keys=True) + "\n"


def read(artifact: Artifact) -> list[Link]:
    """Return the links of an artifact, in the order in which they are to be loaded; none for most.

    Raises:
        ArtifactCorrupt: the record is malformed.
        OSError: the record cannot be read.
    """
    if NAME not in artifact.meta.files:
        return []
    where = artifact.path / NAME
    raw = records.decode(records.read(where), str(where))
    with records.errors_in(str(where)):
        return records.parse(list[Link], raw, "links")
