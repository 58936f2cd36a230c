"""Helpers for tests of the store: entries to publish, and child processes with another user id."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dimorph.store import mark
from dimorph.store.artifact import Artifact, Meta
from dimorph.store.store import Store

STRANGER = 4321  # a user id that is neither root's nor that of an existing user
ME = 1234  # the user id of children that must not have root's rights

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(
    not IS_ROOT, reason="needs root, to make files of other owners and children with other user ids"
)


def key_of(number: int) -> str:
    return f"{number:064x}"


def tool_of(number: int) -> str:
    return f"{number:016x}"


def make_meta(key: int = 1, tool: int = 1, **changes: Any) -> Meta:
    values: dict[str, Any] = {
        "key": key_of(key),
        "toolchain_id": tool_of(tool),
        "kind": "case",
        "kernel": "affine",
        "specialization": {"dtype": "float32", "head_dim": "128"},
        "target": "x86-64-v3",
        "toolchain": "g++ 12.2.0",
        "ffi_abi": "1",
        "created": "2026-11-22T10:00:00+00:00",
    }
    return Meta(**{**values, **changes})


def content_of(number: int, size: int = 1000) -> bytes:
    """Return bytes that differ for every number."""
    return (b"%d " % number * size)[:size]


def publish(store: Store, sources: Path, key: int = 1, tool: int = 1, *, size: int = 1000, **changes: Any) -> Artifact:
    """Publish the entry `key`, whose `case.so` contains `content_of(key)`."""
    sources.mkdir(parents=True, exist_ok=True)
    source = sources / f"{os.getpid()}-{key}.so"
    source.write_bytes(content_of(key, size))
    meta = make_meta(key, tool, **changes)
    return store.publish(meta.key, meta.toolchain_id, {"case.so": source}, meta)


def start_child(function: Callable[[], Any], *, uid: int | None = None) -> tuple[int, int]:
    """Run `function` in a forked process, as user `uid`; return the process id and a pipe, for `result_of`."""
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    status = 1
    try:
        os.close(read_end)
        if uid is not None:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        answer = {"value": function()}
        status = 0
    except BaseException:
        answer = {"error": traceback.format_exc()}
    finally:
        os.write(write_end, json.dumps(answer).encode())
        os._exit(status)


def result_of(child: tuple[int, int]) -> Any:
    """Return the result of the child's function; fail with its traceback if it raised."""
    pid, read_end = child
    with os.fdopen(read_end, "rb") as stream:
        text = stream.read()
    _, status = os.waitpid(pid, 0)
    answer = json.loads(text) if text else {"error": f"the child ended with status {status:#x}"}
    assert "error" not in answer, answer["error"]
    return answer["value"]


def in_child(function: Callable[[], Any], *, uid: int | None = None) -> Any:
    """Run `function` in a forked process, as user `uid`, and return its result, passed through JSON."""
    return result_of(start_child(function, uid=uid))


def tree(root: Path) -> list[str]:
    """Return every path below `root`, to compare directories before and after."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def tree_of_one_entry(key: int) -> list[str]:
    """Return the `tree` of a store to which only the entry `key` was ever published."""
    entry = f"{key_of(key)[:2]}/{key_of(key)}/{tool_of(1)}"
    return sorted(["00", entry.rpartition("/")[0], entry, f"{entry}/case.so", f"{entry}/meta.json", mark.NAME, "tmp"])
