"""The command `dimorph package`, which makes a wheel of artifacts from a manifest."""

from __future__ import annotations

from pathlib import Path

import click

from dimorph.aot import data_package
from dimorph.cli import as_json, options, show
from dimorph.cli.options import Command, output, with_json


@click.command("package", cls=Command)
@click.argument("manifest", type=click.Path(dir_okay=False, path_type=Path))
@options.directory("--out", required=True, help="The directory to leave the wheel in.")
@with_json
def package(manifest: Path, out: Path) -> None:
    """Make a data package: a wheel of artifacts for the kernels of another package.

    MANIFEST is a TOML file that lists kernels and values; see the guide on deployment. Where the wheel is installed,
    loads of what it holds compile nothing. What was compiled is kept in the user's store, so that a build which was
    interrupted goes on where it was.

    \b
    dimorph package packages/dimorph-attention-cpu.toml --out dist
    """
    config = options.settings()
    with options.printing_to_stderr():
        found = data_package.read(manifest)
    with show.progress(found.name, output().quiet) as progress:
        wheel, reports = data_package.make(found, out, config, progress)
    for report in reports:
        output().report(show.report, report)
    megabytes = wheel.stat().st_size / 1e6
    output().report(click.echo, f"{wheel}: {megabytes:.1f} MB")
    output().record({"wheel": str(wheel), "kernels": [as_json.build(report) for report in reports]})
