"""The warnings of compilers about the author's sources: kept with the artifact, and shown once."""

from __future__ import annotations

from collections.abc import Iterable

from dimorph._lazy import logger
from dimorph.plan.unit import Unit
from dimorph.resolve.author import Author
from dimorph.store.artifact import Artifact
from dimorph.toolchain.diagnostics import parse_diagnostics

_log = logger("dimorph")
# A description of an artifact is a small file, which every load reads.
_MOST = 20
_LENGTH = 300
_MAPPED = "/dimorph/"

_shown: set[str] = set()


def warnings(output: str, unit: Unit) -> tuple[str, ...]:
    """Return the first warnings about the author's sources in a compiler's output, each with its file and line.

    Files have the names that debuggers see, `/dimorph/<position of the include directory>/...`, which are the same
    wherever the sources lie. Warnings about other files, such as those of the system, are not the author's to mend.
    """
    if "warning" not in output:
        return ()
    author = Author(unit)
    found = [one for one in parse_diagnostics(output) if one.severity == "warning" and author.owns(one.file)]
    texts = [f"{_name(one.file, unit)}:{one.line}: warning: {one.message}"[:_LENGTH] for one in found]
    return tuple(dict.fromkeys(texts))[:_MOST]


def _name(file: str, unit: Unit) -> str:
    for position, directory in enumerate(unit.include_dirs):
        if file.startswith(f"{directory}/"):
            return f"{_MAPPED}{position}{file[len(str(directory)) :]}"
    return file


def show(built: Iterable[tuple[Unit, Artifact]]) -> None:
    """Log the warnings about the sources of new artifacts, each once in this process, with the files' real names."""
    for unit, artifact in built:
        for recorded in artifact.meta.warnings:
            position, slash, rest = recorded.removeprefix(_MAPPED).partition("/")
            is_mapped = recorded.startswith(_MAPPED) and position.isdecimal() and int(position) < len(unit.include_dirs)
            text = f"{unit.include_dirs[int(position)]}{slash}{rest}" if is_mapped else recorded
            if text not in _shown:
                _shown.add(text)
                _log.warning("dimorph: %s", text)
