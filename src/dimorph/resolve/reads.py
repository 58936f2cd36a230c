"""Records of the files that a compile read beyond the project, and the question whether they are still the same.

A content key covers the project's files. The record covers what else determined the output: headers of the system and
of libraries, start files, libraries, linker scripts, the assembler; and the places that were searched and found empty,
where a new file would be read instead. It is a file of the artifact, so packaged artifacts carry it as provenance. An
artifact of the user's store serves only while its record is true.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dimorph import _lazy
from dimorph._lazy import logger
from dimorph.errors import ArtifactCorrupt
from dimorph.plan.unit import Unit, system_include_dirs
from dimorph.resolve import digests
from dimorph.store.artifact import Artifact
from dimorph.store.store import Store
from dimorph.toolchain.compiler import Compiler

_log = logger("dimorph")

# The name of the record's file in an artifact.
NAME = "reads.json"
# The file beside it with the stamps for which the record was true; each machine makes its own.
_CHECKED = "checked.json"


class Places:
    """The directories whose files are recorded by name, because they lie elsewhere in another environment.

    Args:
        unit: the unit that is compiled; its include directories are places, by their position.
        compiler: the compiler.
    """

    def __init__(self, unit: Unit, compiler: Compiler) -> None:
        found = {"tvm_ffi": _tvm_ffi(), **{name: str(path) for name, path in compiler.roots().items()}}
        self.libraries = tuple(found.values())
        found |= {str(index): str(path) for index, path in enumerate(unit.include_dirs)}
        self.paths = found
        self.search = compiler.path
        self._longest_first = sorted(found.items(), key=lambda item: len(item[1]), reverse=True)

    def name(self, path: str) -> str:
        """Return the name to record for a path: `@place/rest`, or the path."""
        for name, directory in self._longest_first:
            if path.startswith(f"{directory}/") or path == directory:
                return f"@{name}{path[len(directory) :]}"
        return path

    def path(self, name: str) -> str:
        """Return the path for a recorded name; for a place that does not exist here, a path that does not either."""
        if not name.startswith("@"):
            return name
        place, slash, rest = name[1:].partition("/")
        return f"{self.paths.get(place, '/nonexistent')}{slash}{rest}"


@lru_cache(maxsize=1)
def _tvm_ffi() -> str:
    # It is loaded once for a process, so it cannot move.
    return str(system_include_dirs()[0])


@dataclass(frozen=True)
class Reads:
    """The files that a compile read beyond the project.

    Attributes:
        files: name of a file -> its SHA-256; empty for a file that changed while it was read.
        absent: name of a directory -> the names in it that were looked for and not found.
        programs: name of a program that was looked for on PATH -> its paths. The directories of PATH where it was not
            found are no part of the record, because every user has others.
    """

    files: Mapping[str, str]
    absent: Mapping[str, Sequence[str]]
    programs: Mapping[str, Sequence[str]]

    def to_json(self) -> str:
        """Return the text of the record's file."""
        content = {"files": self.files, "absent": self.absent, "programs": self.programs}
        return _lazy.json.dumps(content, indent=0, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: bytes, where: str = NAME) -> Reads:
        """Parse the text that `to_json` returned.

        Raises:
            ArtifactCorrupt: the text is malformed; the message starts with `where`.
        """
        try:
            raw = _lazy.json.loads(text)
            files, absent, programs = raw["files"], raw["absent"], raw["programs"]
            sound = all(isinstance(one, str) for one in (*files, *files.values(), *absent, *programs))
            lists = (*absent.values(), *programs.values())
            if not sound or not all(isinstance(name, str) for names in lists for name in names):
                raise TypeError("a name is no text")
            return cls(files, absent, programs)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise ArtifactCorrupt(f"{where}: expected the record of what a compile read, got {error!r}") from error


def changed(
    artifact: Artifact, unit: Unit, compiler: Compiler, memo_dir: Path | None, *, keep: bool = True
) -> str | None:
    """Return why a compile would read something else now than when it made an artifact; None: it would not.

    Args:
        artifact: an artifact whose checksums were verified.
        unit: its unit.
        compiler: the compiler that made it and would make it again.
        memo_dir: the directory in which checksums of files are kept; None: nothing is kept.
        keep: keep the stamps of the files beside the artifact, so that the next question takes one look at each file.
    """
    record = artifact.meta.files.get(NAME)
    if record is None:
        return "it has no record of what its compile read"
    places = Places(unit, compiler)
    stamps, whole = _remembered(artifact, places)
    if whole and digests.recent.same(stamps):
        return None
    try:
        reads = Reads.from_json((artifact.path / NAME).read_bytes(), str(artifact.path / NAME))
    except (ArtifactCorrupt, OSError) as error:
        return str(error)
    checksums = digests.kept_in(memo_dir)
    found: dict[str, digests.Stamp | None] = {}
    why = (
        _changed_file(reads, places, checksums, stamps, found)
        or _new_file(reads, places, stamps, found)
        or _other_program(reads, compiler, found)
    )
    if why is None and keep:
        remember(artifact, places, found, memo_dir)
        checksums.save()
    return why


def _remembered(artifact: Artifact, places: Places) -> tuple[Mapping[str, digests.Stamp | None], bool]:
    """Return what `remember` kept, and whether it is all; nothing if that is not about this record, or is malformed."""
    kept = digests.read(artifact.path / _CHECKED)
    about = [artifact.meta.files[NAME].sha256, places.paths, places.search]
    if isinstance(kept, dict) and [kept.get("reads"), kept.get("places"), kept.get("search")] == about:
        stamps = kept.get("stamps")
        if isinstance(stamps, dict):  # what is no stamp equals none
            return stamps, kept.get("whole") is True
    return {}, False


def remember(
    artifact: Artifact, places: Places, stamps: Mapping[str, digests.Stamp | None], memo_dir: Path | None
) -> None:
    """Keep beside an artifact the stamps of files and directories for which its record is true."""
    if memo_dir is None:
        return
    lasting = {path: stamp for path, stamp in stamps.items() if digests.settled(stamp)}
    content = {
        "reads": artifact.meta.files[NAME].sha256,
        "places": places.paths,
        "search": places.search,
        "stamps": lasting,
        "whole": len(lasting) == len(stamps),
    }
    digests.write(artifact.path / _CHECKED, memo_dir, content)


def _changed_file(
    reads: Reads,
    places: Places,
    checksums: digests.Digests,
    before: Mapping[str, digests.Stamp | None],
    found: dict[str, digests.Stamp | None],
) -> str | None:
    for name, checksum in reads.files.items():
        path = places.path(name)
        stamp = found[path] = digests.stamp(path)
        if stamp is None:
            return f"{path}, which its compile read, is gone"
        if before.get(path) != stamp and checksums.of(path, stamp) != checksum:
            return f"{path}, which its compile read, has changed"
    return None


def _new_file(
    reads: Reads,
    places: Places,
    before: Mapping[str, digests.Stamp | None],
    found: dict[str, digests.Stamp | None],
) -> str | None:
    for name, absent in reads.absent.items():
        path = places.path(name)
        stamp = found[path] = digests.stamp(path)
        if stamp is None or (path in before and before[path] == stamp):
            continue
        new = sorted(digests.names_in(path, stamp).intersection(absent))
        if new:
            return f"{path}/{new[0]} is new, and a compile would read it"
    return None


def _other_program(reads: Reads, compiler: Compiler, found: dict[str, digests.Stamp | None]) -> str | None:
    for name, before in reads.programs.items():
        now = on_path(name, compiler, found)
        if new := [path for path in now if path not in before]:
            return f"{new[0]} is new, and a compile would read it"
        if now != list(before):
            return f"PATH leads to other programs than before: {', '.join(now) or f'no {name}'}"
    return None


def on_path(name: str, compiler: Compiler, stamps: dict[str, digests.Stamp | None]) -> list[str]:
    """Return the paths of a program that a compile would start: the first on PATH, or all of the compiler's own name.

    A program such as ccache starts the next one of its own name.

    Args:
        name: the name of the program.
        compiler: the compiler, which has a PATH.
        stamps: directory -> its stamp; extended by the directories that were looked at.
    """
    every = any(word.startswith("/") and word.endswith(f"/{name}") for word in compiler.command)
    paths = []
    for directory in (one for one in compiler.path.split(os.pathsep) if one.startswith("/")):
        stamp = stamps[directory] = digests.stamp(directory)
        path = f"{directory}/{name}"
        if stamp is not None and os.access(path, os.F_OK if every else os.X_OK):
            paths.append(path)
            if not every:
                break
    return paths


def find_current(
    store: Store,
    key: str,
    toolchain_id: str,
    unit: Unit,
    compiler: Compiler,
    memo_dir: Path | None,
    *,
    keep: bool = True,
    tell: Callable[[str], None] = lambda why: None,
) -> Artifact | None:
    """Find an artifact that its compiler would make again; one that it would not is removed from the store.

    Args:
        store: the store to search.
        key: the content key.
        toolchain_id: the identity of the compiler.
        unit: the unit of the key.
        compiler: the compiler.
        memo_dir: as for `changed`.
        keep: as for `changed`.
        tell: called with the reason why an artifact is removed.

    Raises:
        OSError: the store cannot be read, or is refused.
    """
    artifact = store.find(key, toolchain_id)
    if artifact is None:
        return None
    why = changed(artifact, unit, compiler, memo_dir, keep=keep)
    if why is None:
        return artifact
    _log.info("%s in %s is built again: %s", unit.label, store.root, why)
    tell(why)
    store.remove(key, toolchain_id)
    return None
