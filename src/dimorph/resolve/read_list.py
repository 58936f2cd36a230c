"""Make the record of what a compile read from the lists of its compiler, and refuse what no key covers."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dimorph.errors import BuildError
from dimorph.plan.unit import Unit
from dimorph.resolve import digests
from dimorph.resolve.reads import Places, Reads, on_path
from dimorph.source.config_header import header_name
from dimorph.source.include_scan import Files, Mention, named_anywhere
from dimorph.toolchain import scripts
from dimorph.toolchain.compiler import Compiler
from dimorph.toolchain.listing import Listing, Searched, directories


class Recorder:
    """State for the record of one compile.

    Args:
        unit: the unit that was compiled, with the sources that its key covers.
        compiler: the compiler.
        listing: the lists of the compiler.
        work_dir: the working directory of the compile.
        began: the time of a file that was written just before the compile began, in nanoseconds.
        named: what `stamps_of_named` returned then.
        checksums: known checksums of files.
    """

    def __init__(
        self,
        unit: Unit,
        compiler: Compiler,
        listing: Listing,
        *,
        work_dir: Path,
        began: int,
        named: Mapping[str, digests.Stamp | None],
        checksums: digests.Digests,
    ) -> None:
        self._unit, self._compiler, self._listing = unit, compiler, listing
        self._work, self._began, self._named, self._checksums = str(work_dir), began, named, checksums
        self.places = Places(unit, compiler)
        self._stamps: dict[str, digests.Stamp | None] = {}
        self._project = [str(directory) for directory in unit.include_dirs]
        self._searched = [one for one in listing.searched if not one.startswith(f"{self._work}/")]
        if not self._searched:
            self._searched = [*self._project, *self.places.libraries]
        self._files: dict[str, str] = {}
        self._absent = _Absent()
        self._programs: dict[str, list[str]] = {}
        self._found: dict[tuple[str, bool], str | None] = {}

    @property
    def stamps(self) -> Mapping[str, digests.Stamp | None]:
        """The stamps of all files and directories of the record; None for a file that changed while it was read."""
        return self._stamps | {path: self._absent.stamps[path] for path in self._absent.found}

    def record(self, files: Files) -> Reads:
        """Return the record.

        Args:
            files: the project's files, as they were read after the compile.

        Raises:
            BuildError: a file of the project was read that the key does not cover.
        """
        for path in self._listing.assembled:
            if not self._absolute(path).startswith(f"{self._work}/"):
                raise self._refused(path, "the assembler reads it (.incbin or .include); put its bytes into a header")
        named = [(mention, source.path) for source in self._unit.sources for mention in _named(files, source.path)]
        named = [(mention, path) for mention, path in named if mention.name != header_name(self._unit.kernel)]
        if self._listing.headers is None:
            self._follow(named)
        else:
            for path in self._outside(self._listing.headers):
                self._header(path)
            for mention, path in named:
                self._look_for(mention, path)
        for path in self._listing.linked:
            self._file(path)
        self._linked_instead()
        for directory in self._listing.missing:
            self._absent.missing("", directory.lstrip("/"))
        self._tools()
        name = self.places.name
        return Reads(
            {name(path): checksum for path, checksum in sorted(self._files.items())},
            {name(path): sorted(names) for path, names in sorted(self._absent.found.items())},
            self._programs,
        )

    def _outside(self, headers: Iterable[str]) -> Iterator[str]:
        """Yield the headers that are not of the project; refuse files of the project that its key does not cover."""
        # By what they are: a path with links in it takes 50 times as long to resolve.
        known = {_id(source.path) for source in self._unit.sources}
        for given in dict.fromkeys(headers):
            path = self._absolute(given)
            if path.startswith(f"{self._work}/") or _id(path) in known:
                continue
            if self._is_projects(path):
                raise self._refused(path, "no source includes it by its own name; include it by name, or move it away")
            yield path

    def _is_projects(self, path: str) -> bool:
        """Return True if a header was found in the project; a compiler may lie in the project's directory, too."""
        system = [one for one in (*self._searched, *self.places.libraries) if one not in self._project]
        plain = posixpath.normpath(path)
        for spelling in (path, plain):
            mine, others = _longest(self._project, spelling), _longest(system, spelling)
            if others > mine:
                return False
            if mine:
                return True
        return False

    def _absolute(self, path: str) -> str:
        return path if path.startswith("/") else f"{self._work}/{path}"

    def _refused(self, path: str, why: str) -> BuildError:
        return BuildError(
            f"{self._unit.label}: the compile read {path}, which is part of no key, so later changes of it would go "
            f"unnoticed: {why}",
            context=self._unit.label,
        )

    def _file(self, path: str) -> None:
        stamp = digests.stamp(path)
        checksum = self._checksums.of(path, stamp)
        self._keep(path, stamp, checksum)

    def _keep(self, path: str, stamp: digests.Stamp | None, checksum: str | None) -> None:
        # A file that changed since the compile began may have been read before; it counts as changed at once.
        if stamp is None or stamp[2] > self._began or checksum is None:
            self._changing(path)
            return
        self._files[path], self._stamps[path] = checksum, stamp

    def _changing(self, path: str) -> None:
        self._files[path], self._stamps[path] = "", None

    def _header(self, path: str) -> None:
        """Record a header outside of the project, and every place in which its own includes were not found."""
        stamp = digests.stamp(path)
        known = _texts.get(path)
        if known is None or known[0] != stamp or not digests.settled(stamp):
            try:
                with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 (as in include_scan)
                    content = stream.readall()
            except OSError:
                self._changing(path)
                return
            known = (stamp, Files.checksum(content), named_anywhere(content))
            _texts[path] = known
        self._keep(path, stamp, known[1])
        own = {path[len(one) + 1 :] for one in self._searched if path.startswith(f"{one}/")}
        for mention in (*map(Mention, own), *known[2]):
            self._look_for(mention, path)

    def _look_for(self, mention: Mention, includer: str) -> str | None:
        """Find a header as the compiler does, and note the places where it is not; return its path."""
        if mention.computed or mention.name.startswith("/"):
            return None
        if mention.quoted and not self._absent.missing(posixpath.dirname(includer), mention.name):
            return f"{posixpath.dirname(includer)}/{mention.name}"
        asked = (mention.name, mention.every)
        if asked not in self._found:
            self._found[asked] = self._search(*asked)
        return self._found[asked]

    def _search(self, name: str, every: bool) -> str | None:
        first = None
        for directory in self._searched:
            if self._absent.missing(directory, name):
                continue
            first = first or f"{directory}/{name}"
            if not every:
                break
        return first

    def _follow(self, named: Sequence[tuple[Mention, str]]) -> None:
        """Record every header outside of the project that a compile can reach, for a compiler without lists."""
        left = list(named)
        while left:
            mention, includer = left.pop()
            path = self._look_for(mention, includer)
            if path is None or path in self._files or _longest(self.places.libraries, path) == 0:
                continue
            self._header(path)
            left += [(one, path) for one in (_texts[path][2] if path in _texts else ())]

    def _linked_instead(self) -> None:
        """Note where libraries and the driver's `specs` would be read from, if they were there."""
        linked = list(dict.fromkeys(posixpath.dirname(path) for path in self._listing.linked))
        for directory in dict.fromkeys((*linked, *_searched(self._compiler).programs)):
            if not self._absent.missing(directory, "specs"):
                self._file(f"{directory}/specs")
        for path in self._listing.linked:
            stem, suffix = posixpath.splitext(posixpath.basename(path))
            if stem.startswith("lib") and suffix in (".a", ".so"):
                for directory in linked:
                    for other in (".so", ".a"):
                        self._absent.missing(directory, stem + other)

    def _tools(self) -> None:
        programs = [word for word in self._compiler.command if word.startswith("/")]
        for tool in self._compiler.tools():
            if tool.startswith("/"):
                self._file(tool)
                continue
            for directory in dict.fromkeys(_searched(self._compiler).programs):
                if os.access(f"{directory}/{tool}", os.X_OK):
                    programs.append(f"{directory}/{tool}")
                    self._file(programs[-1])
                    break
                self._absent.missing(directory, tool)
            else:
                programs += self._on_path(tool)[:1]
        for name in dict.fromkeys(posixpath.basename(word) for word in self._compiler.command if word.startswith("/")):
            self._on_path(name)
        for path, there in scripts.named(programs, self._compiler.environment(Path("/"))):
            if not there:
                self._absent.missing(*posixpath.split(path))
            elif (stamp := digests.stamp(path)) == self._named.get(path, stamp):  # not what the script itself writes
                self._file(path)

    def _on_path(self, name: str) -> list[str]:
        """Record the programs of a name that a compile would start; see `on_path`."""
        paths = self._programs[name] = on_path(name, self._compiler, self._stamps)
        for path in paths:
            self._file(path)
        return paths


def _searched(compiler: Compiler) -> Searched:
    if "ld" not in compiler.tools():
        return Searched((), ())
    return directories(compiler.command, tuple(compiler.environment(Path("/")).items()))


def prepare(compiler: Compiler) -> None:
    """Ask the compiler beforehand what a record needs of it, while it compiles."""
    _searched(compiler)


# Header -> its stamp, checksum and what it includes: the units of a build read the same ones.
_texts: dict[str, tuple[digests.Stamp | None, str, tuple[Mention, ...]]] = {}


class _Absent:
    """Names that are in no directory, by the last directory on their way that exists."""

    def __init__(self) -> None:
        self.found: dict[str, set[str]] = {}
        self.stamps: dict[str, digests.Stamp | None] = {}
        self._names: dict[str, set[str] | None] = {}

    def missing(self, directory: str, name: str) -> bool:
        """Note a name that is not in a directory; return True if it is not."""
        where, _, last = f"{directory}/{name}".rpartition("/")
        names = self._in(where)
        while names is None and where:
            where, _, last = where.rpartition("/")
            names = self._in(where or "/")
        if names is None or last in names:
            return not os.path.exists(f"{directory}/{name}")  # noqa: PTH110
        self.found.setdefault(where or "/", set()).add(last)
        return True

    def _in(self, directory: str) -> set[str] | None:
        if directory not in self._names:
            self.stamps[directory] = digests.stamp(directory)
            try:
                self._names[directory] = set(os.listdir(directory))  # noqa: PTH208 (names, not paths)
            except OSError:
                self._names[directory] = None
        return self._names[directory]


def _named(files: Files, path: str) -> tuple[Mention, ...]:
    content = files.read(path)[1]
    return content.mentions.found if content else ()


def _id(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 (as in digests)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _longest(directories: Iterable[str], path: str) -> int:
    """Return the length of the longest of the directories that contain a path; 0: none does."""
    return max((len(one) for one in directories if path.startswith(f"{one}/")), default=0)


def stamps_of(unit: Unit) -> Mapping[str, digests.Stamp | None]:
    """Return the stamps of the project's files that a unit's key covers."""
    return {source.path: digests.stamp(source.path) for source in unit.sources}


def stamps_of_named(compiler: Compiler) -> Mapping[str, digests.Stamp | None]:
    """Return the stamps of all that the scripts of a compiler's command line name; None for what is not there."""
    programs = [word for word in compiler.command if word.startswith("/")]
    named = scripts.named(programs, compiler.environment(Path("/")))
    return {path: digests.stamp(path) if there else None for path, there in named}
