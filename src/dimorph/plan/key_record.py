"""What a content key was made of, kept beside what was built, so that two keys can be compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dimorph.errors import ArtifactCorrupt
from dimorph.plan.unit import Unit
from dimorph.settings import Settings
from dimorph.source.cpp_text import without_comments
from dimorph.store.artifact import Artifact
from dimorph.toolchain.compiler import Level

# The file of an artifact that holds them.
NAME = "inputs.json"

# Of a file's digest: enough to see that the file changed.
_DIGITS = 16


@dataclass(frozen=True)
class KeyRecord:
    """What decides a key, apart from the versions of Dimorph's own format and of the FFI ABI.

    Attributes:
        header: the config header without comments.
        target: the target level.
        unit: the text of the translation unit; None: not recorded.
        options: what was asked of the compiler, in words; None: not recorded.
        sources: name -> the first digits of a file's digest; None: not recorded.
    """

    header: str
    target: str
    unit: str | None = None
    options: tuple[str, ...] | None = None
    sources: Mapping[str, str] | None = None

    @classmethod
    def of(cls, unit: Unit, target: Level, settings: Settings) -> KeyRecord:
        """Those of a unit, its sources as they are now."""
        # A debug build belongs to the place of its sources.
        flags, *place = unit.options(target, settings)
        return cls(
            header=without_comments(unit.header),
            target=target.name,
            unit=unit.text,
            options=(*_words(json.loads(flags)), *place),
            sources={source.logical: source.sha256[:_DIGITS] for source in unit.sources},
        )

    @classmethod
    def recorded(cls, artifact: Artifact) -> KeyRecord:
        """Those that an artifact was built from, as far as it holds them.

        Raises:
            ArtifactCorrupt: the record is not one.
            OSError: a file of the artifact cannot be read.
        """
        header = without_comments((artifact.path / f"{artifact.meta.kernel}_config.h").read_text("utf-8"))
        if NAME not in artifact.meta.files:
            return cls(header, artifact.meta.target)
        where = artifact.path / NAME
        try:
            raw = json.loads(where.read_bytes())
            return cls(header, artifact.meta.target, raw["unit"], tuple(raw["options"]), dict(raw["sources"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactCorrupt(f"{where}: expected what a key was made of, got {error!r}") from error

    def to_json(self) -> str:
        """The text of the record: what the artifact does not say elsewhere."""
        content = {"unit": self.unit, "options": self.options, "sources": self.sources}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _words(value: Any) -> Iterator[str]:
    """Every text in a JSON value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _words(part)
    else:
        for part in value:
            yield from _words(part)
