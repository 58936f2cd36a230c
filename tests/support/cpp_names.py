"""The names that C++ headers declare in namespaces and in the public parts of classes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# What says nothing about a name: comments, directives, lines that are calls of macros, attributes, strings.
_NOISE = re.compile(
    r'//[^\n]*|/\*.*?\*/|^[ \t]*#(?:\\\n|[^\n])*|^[A-Z_]+\([^;{}]*\)$|"(?:\\.|[^"\\])*"|\[\[.*?\]\]'
    r"|(?:__attribute__|alignas)\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)",
    re.MULTILINE | re.DOTALL,
)
_TOKEN = re.compile(r"\w+|::|->|[^\s\w]")
_CLASSES = ("class", "struct", "union")
_NOT_NAMES = {"friend", "static_assert", "operator", "extern", "private", "public", "protected"}


@dataclass
class _Scope:
    """A pair of braces; `name` is that of a namespace or class, and `open` says whether its names count."""

    name: str
    is_class: bool
    open: bool


def declared(text: str) -> Iterator[tuple[str, str]]:
    """Yield the scope, such as `dimorph::Tensor`, and the name of each declaration that is not private."""
    scopes: list[_Scope] = [_Scope("", False, True)]
    head: list[str] = []
    for token in _TOKEN.findall(_NOISE.sub(" ", text)):
        here = scopes[-1]
        if token == ":" and here.is_class and head and head[-1] in ("public", "private", "protected"):
            here.open, head = head[-1] == "public", []
        elif token in "{;":
            name, kind = _name(head) if here.open else ("", "")
            if name and kind != "namespace":
                others = [] if "(" in head else [head[at] for at in range(1, len(head)) if head[at - 1] == ","]
                for one in (name, *(others if kind == "value" else ())):
                    yield "::".join(scope.name for scope in scopes[1:]), one
            if token == "{":
                scopes.append(_Scope(name, kind in _CLASSES, here.open and kind in (*_CLASSES, "namespace")))
                if kind in _CLASSES:
                    scopes[-1].open = kind != "class"
            head = []
        elif token == "}":
            scopes.pop()
            head = []
        else:
            head.append(token)


def _name(head: list[str]) -> tuple[str, str]:
    """Return the name that a declaration makes, and its first keyword; empty where there is none."""
    words = _without_template(head)
    if not words or words[0] in _NOT_NAMES or "operator" in words:
        return "", ""
    if words[0] == "using":
        return (words[1] if "=" in words else ""), "using"
    if words[0] in ("namespace", "enum", *_CLASSES) and "(" not in words:
        # `enum class` has two keywords; a specialization of a template has its name.
        names = [word for word in words if word not in ("namespace", "enum", *_CLASSES)]
        return (names[0] if names else "(unnamed)"), words[0]
    stops = [words.index(stop) for stop in ("(", "=", "[", ",") if stop in words]
    before = words[: min(stops)] if stops else words
    while before and before[-1] == ">":  # the arguments of a specialization
        before = before[: len(before) - 1 - before[::-1].index("<")]
    if not before or not before[-1].isidentifier() or "~" in before:
        return "", ""
    return before[-1], "value"


def _without_template(head: list[str]) -> list[str]:
    """Return a declaration without `template <...>` at its beginning."""
    while head and head[0] == "template":
        depth, at = 0, 1
        while at < len(head) and (depth or at == 1):
            depth += {"<": 1, ">": -1}.get(head[at], 0)
            at += 1
        head = head[at:]
    return head
