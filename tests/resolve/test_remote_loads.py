"""Loads from remote stores: under every policy, from sets built ahead, and with remote stores that fail."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("cryptography", reason="cryptography, of the extra `remote`, is not installed")

import dimorph as dm
from dimorph import settings
from dimorph.cli.commands import dimorph
from dimorph.cli.explain import explain
from dimorph.errors import MissingSpecialization
from dimorph.store import fetched, remote
from dimorph.store.fetched import kept_stores
from dimorph.store.store import Store
from support.compilers import Compiler
from support.kernels import PICK


@pytest.fixture(autouse=True)
def new_process() -> None:
    """Forget what this process knows of remote stores."""
    for known in (fetched._absent, fetched._elsewhere, fetched._refused, fetched._fresh, remote._left_alone):
        known.clear()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a remote store with a set that was built ahead, as the command prints it."""
    root = tmp_path_factory.mktemp("remote")
    PICK.build(root / "out", width=[1, 2], depth=1, settings=replace(settings.current(), store=root / "store"))
    command = ["cache", "export", f"file://{root}/served", "--from", str(root / "out"), "--sign", str(root / "key.pem")]
    done = CliRunner().invoke(dimorph, command)
    assert done.exit_code == 0, done.output
    assert "files written, 0 there already" in done.output
    return done.output.splitlines()[-1].removeprefix("DIMORPH_REMOTE_STORES='").removesuffix("'")


@pytest.fixture
def config(address: str, store: Path) -> dm.Settings:
    return replace(settings.current(), store=store, remote_stores=(address,))


@pytest.mark.parametrize("policy", ["aot", "auto"])
@pytest.mark.parametrize("values", [{"width": 1, "depth": 1}, {"width": [1, 2], "depth": 1}], ids=["one", "set"])
def test_nothing_is_compiled(
    config: dm.Settings, store: Path, compiler: Compiler, policy: str, values: dict[str, int]
) -> None:
    """One value is served by the entry of the set, which the manifest names, as from a local directory."""
    config = replace(config, cxx=settings.current().cxx)
    assert PICK.load(policy=policy, settings=config, **values).pick(1, 1) == 1001
    assert compiler.compiled() == []
    assert list(Store(store).entries()) == []
    (kept,) = kept_stores(Store(store))
    assert {artifact.meta.kind for artifact in kept.entries()} == {"entry", "case"}  # type: ignore[union-attr]


def test_a_second_load_needs_no_remote_store(config: dm.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PICK.load(policy="aot", settings=config, width=1, depth=1).pick(1, 1) == 1001
    fetched._fresh.clear()
    monkeypatch.setattr(remote.Remote, "_content", lambda *_: (_ for _ in ()).throw(OSError("off-line")))
    assert PICK.load(policy="aot", settings=config, width=1, depth=1).pick(1, 1) == 1001


def test_what_asks_nobody(config: dm.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy `jit` has the user's store only, and `explain` changes nothing."""
    monkeypatch.setattr(remote.Remote, "read", lambda *_: pytest.fail("asked"))
    explained = explain(PICK.instantiations(width=1, depth=1), config, "aot")
    assert any("what was fetched of it" in line for line in explained[0].passed)
    with pytest.raises(MissingSpecialization):
        PICK.load(policy="jit", settings=replace(config, cxx="/none", path="/none"), width=1, depth=1)


def test_the_error_says_why_a_remote_store_did_not_serve(config: dm.Settings, address: str) -> None:
    other = f"{address.partition('#')[0]}#ed25519={'1' * 64}"
    with pytest.raises(MissingSpecialization, match=r"refused: .*expected a signature by 1111"):
        PICK.load(policy="aot", settings=replace(config, remote_stores=(other,)), width=[1, 2], depth=1)


def test_a_remote_store_that_fails_leaves_the_build(
    config: dm.Settings, compiler: Compiler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote.Remote, "_content", lambda *_: (_ for _ in ()).throw(OSError("off-line")))
    config = replace(config, cxx=settings.current().cxx)
    assert PICK.load(settings=config, width=2, depth=1).pick(2, 1) == 2001
    assert len(compiler.compiled()) == 2
    said = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len([line for line in said if "off-line" in line]) == 1


def test_a_bad_address_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_REMOTE_STORES", "http://host/store")
    with pytest.raises(ValueError, match="DIMORPH_REMOTE_STORES: http://host/store: anybody on the way"):
        PICK.load(policy="aot", width=1, depth=1)


def test_the_commands_count_what_was_fetched(
    config: dm.Settings, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMORPH_REMOTE_STORES", address)
    PICK.load(policy="aot", width=1, depth=1)
    run = CliRunner().invoke
    assert "2 artifacts, 0 broken" in run(dimorph, ["cache", "verify"]).output
    assert "pick" in run(dimorph, ["cache", "list"]).output
    assert "removed 2 artifacts" in run(dimorph, ["cache", "prune", "--max-size", "0"]).output
    assert [list(kept.entries()) for kept in kept_stores(Store(config.store))] == [[]]
