"""The commands of `dimorph cache`, for the store of this machine."""

from __future__ import annotations

from datetime import timedelta

import click

from dimorph import settings as configuration
from dimorph.cli import as_json, show
from dimorph.cli.options import Group, amount, output, settings, with_json
from dimorph.errors import counted
from dimorph.store.layers import user_store
from dimorph.store.store import Broken, is_content_error


@click.group(cls=Group)
def cache() -> None:
    """Inspect and clean the store of this machine's artifacts."""


@cache.command()
@with_json
def path() -> None:
    """Print the store's directory."""
    store = user_store(settings())
    output().answer(click.echo, store.root)
    output().record({"store": str(store.root)})


@cache.command("list")
@with_json
def list_() -> None:
    """List the artifacts in the store, by kernel."""
    store = user_store(settings())
    found, usages = list(store.entries()), store.usage()
    output().answer(show.entries, found, usages)
    output().record({"store": str(store.root), **as_json.entries(found, usages)})


@cache.command()
@with_json
def verify() -> None:
    """Verify every checksum in the store. Exit status 1: an artifact cannot be used."""
    store = user_store(settings())
    broken = store.verify()
    count = sum(1 for _ in store.entries())
    output().answer(show.lines, [f"{_blame(item)}: {item.error}" for item in broken])
    output().report(click.echo, f"{store.root}: {counted(count, 'artifact')}, {len(broken)} broken")
    listed = [as_json.broken(item) for item in broken]
    output().record({"ok": not broken, "store": str(store.root), "count": count, "broken": listed})
    if broken:
        click.get_current_context().exit(1)


def _blame(item: Broken) -> str:
    return "corrupt, rebuilt when it is next needed" if is_content_error(item.error) else "not usable"


@cache.command()
@click.option(
    "--max-size", metavar="SIZE", type=amount(configuration.size), help="The size that the store may keep, e.g. 1GB."
)
@click.option(
    "--max-age",
    metavar="AGE",
    type=amount(configuration.age),
    help="The longest time since its last use that an artifact may have, e.g. 30d.",
)
@with_json
def prune(max_size: float | None, max_age: float | None) -> None:
    """Remove old and broken artifacts, and the leftovers of killed builds.

    With --max-size the least recently used artifacts go first.

    \b
    dimorph cache prune --max-size 1GB
    dimorph cache prune --max-age 30d
    """
    if max_size is None and max_age is None:
        raise click.UsageError("expected --max-size or --max-age, or both")
    store = user_store(settings())
    corrupt = store.remove_corrupt()
    removed = store.prune(
        None if max_size is None else int(max_size), None if max_age is None else timedelta(seconds=max_age)
    )
    swept, left = store.sweep(), store.size()
    freed = sum(usage.size for usage in removed)
    gone = f"{counted(len(removed), 'artifact')} ({show.size(freed)})"
    gone += f", {corrupt} that could not be used" if corrupt else ""
    gone += f", {counted(swept, 'directory', 'directories')} of killed builds" if swept else ""
    output().report(click.echo, f"{store.root}: removed {gone}; {show.size(left)} left")
    output().record(
        {
            "store": str(store.root),
            "removed": len(removed),
            "freed_bytes": freed,
            "unusable": corrupt,
            "leftovers": swept,
            "bytes": left,
        }
    )
