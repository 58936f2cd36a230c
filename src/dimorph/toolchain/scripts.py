"""Files and programs that a wrapper script of a compiler names: it may read them, or start them.

A script is not understood, only its words are looked at. So a file that it never opens counts too, which costs a
compile when that file changes; a name that the script puts together while it runs is not seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from posixpath import dirname

# What is neither white space nor a sign that shells and response files put around a name.
_WORD = re.compile(r"[^\s\"'`$;&|<>(){}\[\]=,:@\\]+")
_VARIABLE = re.compile(r"\$(?:\w+|\{[^}]*\})")
_LONGEST = 1 << 16  # bytes of a script, and of a file of text that it names


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
    return tuple(dict.fromkeys(_WORD.findall(_VARIABLE.sub(" ", os.fsdecode(content)))))


def places(word: str, file: str, path: Sequence[str], home: str | None) -> Iterator[str]:
    """Yield the paths that a word in a file can stand for, in the order in which they would be tried.

    Args:
        word: the word.
        file: the file in which it stands; what is left of `$(dirname "$0")/name` is searched beside it, and what is
            left of `$HOME/name` in the home directory.
        path: the directories of PATH, in which a word without a slash is searched.
        home: the home directory that the script knows, if any.
    """
    if word.startswith("/"):
        yield word
    elif "/" not in word:
        yield from (f"{directory}/{word}" for directory in path)
    for directory in dict.fromkeys((dirname(file), dirname(os.path.realpath(file)), *([home] if home else ()))):
        yield f"{directory}/{word.lstrip('~/')}"


def named(programs: Sequence[str], env: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Yield each path that scripts and the texts they name can stand for, and whether it is a regular file.

    Args:
        programs: paths of programs; those that are no scripts name nothing.
        env: the variables with which they run.
    """
    path = [one for one in env["PATH"].split(os.pathsep) if one.startswith("/")]
    left = [(file, word) for file in programs for word in words(file, script=True)]
    seen = set(programs)
    while left:
        file, word = left.pop()
        for place in places(word, file, path, env.get("HOME")):
            if place in seen:
                continue
            seen.add(place)
            there = os.path.isfile(place)  # noqa: PTH113 (a word that may be no path)
            yield place, there
            if there:
                left += [(place, one) for one in words(place, script=False)]
