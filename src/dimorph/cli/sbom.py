"""The command `dimorph sbom`."""

from __future__ import annotations

from pathlib import Path

import click

from dimorph.aot import sbom as bill
from dimorph.cli.options import Command, directory, settings
from dimorph.store.layers import shared_store, user_store


@click.command(cls=Command)
@directory("--from", "source", help="The directory that was built ahead; default: the store of this machine.")
def sbom(source: Path | None) -> None:
    """Print what artifacts were made from, as CycloneDX JSON.

    Each artifact is listed with its files, flags and compiler, the sources, headers and libraries that its compile
    read, and their checksums.

    \b
    dimorph sbom --from mypackage/_dimorph > sbom.cdx.json
    """
    store = shared_store(source) if source else user_store(settings(), read_only=True)
    click.echo(bill.describe(store), nl=False)
