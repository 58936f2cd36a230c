"""Records of the inputs of content keys, kept inside the artifacts so that two keys can be compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dimorph import records
from dimorph.errors import ArtifactCorrupt
from dimorph.plan.unit import Unit
from dimorph.settings import Settings
from dimorph.source.cpp_text import without_comments
from dimorph.store.artifact import Artifact
from dimorph.toolchain.compiler import Level

# The name of the record's file in an artifact.
NAME = "inputs.json"

OF_CODE = "without comments: "
"""The beginning of a digest of a header of Dimorph, which is that of its content without comments."""


@dataclass(frozen=True)
class _Inputs:
    """The content of the record's file."""

    unit: str
    options: tuple[str, ...]
    sources: Mapping[str, str]


@dataclass(frozen=True)
class KeyRecord:
    """The inputs of a content key, apart from the versions of Dimorph's own format and of the FFI ABI.

    Attributes:
        header: the text of the config header without comments.
        target: the name of the target level or architecture.
        unit: the text of the translation unit; None: not recorded.
        options: the words of the options of the compile; None: not recorded.
        sources: logical name of a file -> its SHA-256, after `OF_CODE` where comments do not count; None: not recorded.
    """

    header: str
    target: str
    unit: str | None = None
    options: tuple[str, ...] | None = None
    sources: Mapping[str, str] | None = None

    @classmethod
    def of(cls, unit: Unit, target: Level, settings: Settings) -> KeyRecord:
        """Return the inputs of a unit's key under the given target and settings."""
        # After the flags come the path of the sources, of a debug build, and the dependencies.
        flags, *others = unit.options(target, settings)
        return cls(
            header=without_comments(unit.header),
            target=target.name,
            unit=unit.text,
            options=(*_words(json.loads(flags)), *others),
            sources={one.logical: f"{OF_CODE if one.is_own else ''}{one.sha256}" for one in unit.sources},
        )

    @classmethod
    def recorded(cls, artifact: Artifact) -> KeyRecord:
        """Return the inputs of an artifact's key, as far as the artifact contains them.

        Raises:
            ArtifactCorrupt: the file of the record is malformed.
            OSError: a file of the artifact cannot be read.
        """
        name = next((name for name in artifact.meta.files if name.endswith("_config.h")), "")
        if not name:
            raise ArtifactCorrupt(f"{artifact.path}: expected a config header among its files")
        where = artifact.path / name
        with records.errors_in(str(where)):
            header = without_comments(records.read(where).decode())
        if NAME not in artifact.meta.files:
            return cls(header, artifact.meta.target)
        where = artifact.path / NAME
        raw = records.decode(records.read(where), str(where))
        with records.errors_in(f"{where}: expected the record of a key's inputs"):
            inputs = records.parse(_Inputs, raw, "inputs")
        return cls(header, artifact.meta.target, inputs.unit, inputs.options, inputs.sources)

    def to_json(self) -> str:
        """Return the text of the record's file, with the inputs that no other file of the artifact contains."""
        content = {"unit": self.unit, "options": self.options, "sources": self.sources}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _words(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _words(part)
    else:
        for part in value:
            yield from _words(part)
