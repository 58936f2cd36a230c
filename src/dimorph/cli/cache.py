"""The commands of `dimorph cache`, for the store of this machine."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from dimorph import settings as configuration
from dimorph.cli import as_json, show
from dimorph.cli.options import Group, amount, directory, output, settings, with_json
from dimorph.errors import DimorphError, counted
from dimorph.store.export import export as export_store
from dimorph.store.fetched import kept_stores
from dimorph.store.layers import shared_store, user_store
from dimorph.store.pack import Signer
from dimorph.store.remote import Remote
from dimorph.store.store import Broken, Store, is_content_error


@click.group(cls=Group)
def cache() -> None:
    """Inspect, clean and export the store of this machine's artifacts."""


def _stores() -> list[Store]:
    """Return the user's store, and what was fetched of remote stores."""
    store = user_store(settings())
    return [store, *kept_stores(store)]


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
    stores = _stores()
    found = [item for store in stores for item in store.entries()]
    usages = [usage for store in stores for usage in store.usage()]
    output().answer(show.entries, found, usages)
    output().record({"store": str(stores[0].root), **as_json.entries(found, usages)})


@cache.command()
@with_json
def verify() -> None:
    """Verify every checksum in the store. Exit status 1: an artifact cannot be used."""
    stores = _stores()
    store = stores[0]
    broken = [item for one in stores for item in one.verify()]
    count = sum(1 for one in stores for _ in one.entries())
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
    stores = _stores()
    store = stores[0]
    corrupt = sum(one.remove_corrupt() for one in stores)
    largest = None if max_size is None else int(max_size)
    oldest = None if max_age is None else timedelta(seconds=max_age)
    removed = [usage for one in stores for usage in one.prune(largest, oldest)]
    swept, left = sum(one.sweep() for one in stores), sum(one.size() for one in stores)
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


@cache.command()
@click.argument("url")
@directory("--from", "source", help="The directory that was built ahead; default: the store of this machine.")
@click.option(
    "--sign",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The private key to sign with; made if there is no such file.",
)
@with_json
def export(url: str, source: Path | None, sign: Path | None) -> None:
    """Write the artifacts of a store to a URL.

    Others fetch them from there when DIMORPH_REMOTE_STORES names it. The URL is any that fsspec can write, such as
    s3://bucket/kernels or file:///srv/kernels. A file that is there with the same content is not written again.

    \b
    dimorph cache export file:///srv/kernels --sign kernels.pem
    dimorph cache export s3://bucket/kernels --from mypkg/_dimorph
    """
    try:
        remote = Remote.parse(f"{url}#ed25519={'0' * 64}")
        signer = Signer(sign) if sign else None
        store = shared_store(source) if source else user_store(settings(), read_only=True)
        done = export_store(store, remote, signer)
    except (ImportError, ValueError) as error:
        raise DimorphError(str(error)) from error
    address = remote.url + (f"#ed25519={signer.public_key}" if signer else "")
    output().report(click.echo, f"{counted(len(done.written), 'file')} written, {len(done.present)} there already")
    output().answer(click.echo, f"DIMORPH_REMOTE_STORES='{address}'")
    output().record({"url": url, "address": address, "written": done.written, "present": done.present})
