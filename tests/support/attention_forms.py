"""The operation in both forms: with specialized modules, or served by what was built ahead and never compiling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from dimorph import aot, settings
from dimorph import attention as at
from dimorph.declare.instantiations import InstantiationSet


def attention_in(
    form: str, store: Path, directories: pytest.TempPathFactory, ahead: Iterable[InstantiationSet]
) -> at.Attention:
    """Return the operation in the form `jit` or `aot`.

    Args:
        form: the form.
        store: the user's store, in which artifacts are built.
        directories: makes the directories of the form `aot`: an empty store, and one to build ahead into.
        ahead: what the form `aot` is built for.
    """
    config = replace(settings.current(), store=store)
    if form == "jit":
        return at.Attention(policy="jit", settings=config)
    own, built = (directories.mktemp(name) for name in ("own", "ahead"))
    for chosen in ahead:
        aot.build(chosen, built, settings=config)
    return at.Attention(policy="aot", settings=replace(config, store=own, shared_stores=(built,)))
