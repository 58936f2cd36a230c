"""Files and programs that a wrapper script of a compiler names: it may read them, or start them.

A script is not understood, only its words are looked at, each in every place where the script may mean it. So a file
that it never opens counts too, which costs a compile when that file changes. A name that it computes from other words
is not seen, nor what lies behind the first thousands of places.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from posixpath import dirname

# Words, as shells and response files part them: in quotes, between blanks, and what no sign of a shell's is part of.
_WORDS = (
    re.compile(r"\"([^\"\n]+)\"|'([^'\n]+)'"),
    re.compile(r"@?([^\s\"'`;&|<>(){}]+)"),
    re.compile(r"([^\s\"'`$;&|<>(){}\[\]=,:@\\]+)"),
)
_VARIABLE = re.compile(r"\$(?:\w+|\{[^}]*\})")
_LONGEST = 1 << 16  # bytes of a script, and of a file of text that it names
_MOST = 16  # directories beneath which words are tried
_PLACES = 5000  # that are looked at, those of the first script first: 10 ms
_SYSTEM = ("/usr/", "/bin/", "/lib", "/etc/", "/proc/", "/dev/")  # whose texts name nothing of the caller's


def words(file: str, *, script: bool) -> tuple[str, ...]:
    """Return the words of a file; none if it is no text, or too long for a script.

    Args:
        file: the path of the file.
        script: it counts only if it begins with `#!`.
    """
    try:
        with Path(file).open("rb", buffering=0) as stream:
            content = stream.read(2) or b""
            if script and content != b"#!":
                return ()
            content += stream.read(_LONGEST) or b""
    except OSError:
        return ()
    if len(content) > _LONGEST or b"\0" in content:
        return ()
    text = _VARIABLE.sub("", os.fsdecode(content))
    found = (match for pattern in _WORDS for match in pattern.finditer(text))
    return tuple(dict.fromkeys(next(filter(None, match.groups())) for match in found))


def places(word: str, file: str, searched: Sequence[str], own: Sequence[str]) -> Iterator[str]:
    """Yield the paths that a word in a file can stand for, in the order in which they would be tried.

    Args:
        word: the word; the rest of `$(dirname "$0")/name` begins with a slash, and may lie beneath any directory.
        file: the file in which it stands.
        searched: the directories of PATH and of the user.
        own: those that the script names.
    """
    if word.startswith("/"):
        yield word
    beneath = word.lstrip("~/")
    # A pattern without a letter, as in `case *)`, would name every file there is.
    if not re.search(r"\w", beneath):
        return
    for directory in dict.fromkeys((*searched, *own, dirname(file), dirname(os.path.realpath(file)))):
        yield f"{directory}/{beneath}"


def named(programs: Sequence[str], env: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Yield each path that scripts and the texts they name can stand for, and whether it is a regular file.

    Args:
        programs: paths of programs; those that are no scripts name nothing.
        env: the variables with which they run.
    """
    texts = [(file, words(file, script=True)) for file in programs]
    if not any(found for _, found in texts):
        return
    searched = [one for one in (*env["PATH"].split(os.pathsep), env.get("HOME", "")) if one.startswith("/")]
    own: list[str] = []
    seen, before = set(programs), -1
    matching = cache(_matching)
    while before != len(seen) < _PLACES:  # again, because a directory may be named behind the words beneath it
        before = len(seen)
        for file, found in texts:
            tried = (path for word in found for path in places(word, file, searched, own))
            for place in (place for path in tried for place in matching(path)):
                if place in seen:
                    continue
                if len(seen) >= _PLACES:
                    return
                seen.add(place)
                mode = _mode(place)
                if stat.S_ISDIR(mode):
                    own += [place] if len(own) < _MOST else []
                    continue
                yield place, stat.S_ISREG(mode)
                if stat.S_ISREG(mode) and not place.startswith(_SYSTEM):
                    texts.append((place, words(place, script=False)))


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode  # noqa: PTH116 (thousands of texts)
    except (OSError, ValueError):
        return 0


def _matching(path: str) -> Sequence[str]:
    return sorted(glob.glob(path)) if re.search(r"[*?\[]", path) else (path,)  # noqa: PTH207 (paths are text)
