"""The commands for records of use: merge them, build from one, prove that everything in one was built."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import click

from dimorph import aot
from dimorph.aot import recorded
from dimorph.aot.workers import workers
from dimorph.cli import as_json, options, show
from dimorph.cli import report as report_page
from dimorph.cli.options import Group, output, with_json
from dimorph.errors import counted
from dimorph.store import use


@click.group(cls=Group)
def record() -> None:
    """Work with records of use, which DIMORPH_RECORD and dimorph.record write."""


@record.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path))
@with_json
def merge(out: Path, records: Sequence[Path]) -> None:
    """Write the sum of RECORDS to OUT, sorted: equal use gives equal bytes.

    \b
    dimorph record merge use.json node1.json node2.json
    """
    found = use.merged(map(use.read, records))
    use.write(out, found)
    calls = sum(one.calls for one in found)
    text = f"{out}: {counted(len(found), 'entry or case', 'entries and cases')}, {counted(calls, 'call')}"
    output().report(show.lines, [text])
    output().record({"out": str(out), "uses": [as_json.used(one) for one in found]})


@click.command(cls=options.Command)
@click.argument("record", type=click.Path(path_type=Path))
@click.argument("places", nargs=-1, required=True, metavar="WHEEL_OR_DIRECTORY...", type=click.Path(path_type=Path))
@options.levels
@with_json
def cover(record: Path, places: Sequence[Path], targets: tuple[str, ...], archs: tuple[str, ...]) -> None:
    """Prove that wheels or directories serve everything in RECORD.

    Keys are computed from the sources that are installed here. It needs no compiler and no GPU. Exit status 1:
    something is not served, and the output says what differs.

    \b
    dimorph cover use.json dist/mypkg-1.0-py3-none-manylinux_2_17_x86_64.whl
    dimorph cover use.json _dimorph --target x86-64-v3 --json
    """
    options.settings()
    with options.printing_to_stderr():
        proof = aot.cover(record, places, targets=targets or None, archs=archs or None)
    output().answer(show.lines, str(proof).splitlines())
    output().record(as_json.proof(proof))
    if not proof.ok:
        click.get_current_context().exit(1)


def build(
    record: Path,
    words: Sequence[str],
    out: Path | None,
    targets: tuple[str, ...],
    archs: tuple[str, ...],
    executor: str | None,
    shard: tuple[int, int] | None,
    page: Path | None,
) -> None:
    """Build what a record names; see `dimorph build --from`."""
    if words:
        raise click.UsageError(
            f"--from builds what the record names, for Python: expected nothing else, got {words[0]}"
        )
    config = options.settings()
    with options.printing_to_stderr():
        found, problems = recorded.find(use.read(record))
    reports = []
    with workers(options.executor(executor)) if executor else nullcontext() as farm:
        for part in recorded.parts(found):
            device = bool(part.wanted.kernel.device)
            with show.progress(part.wanted.kernel.name, output().quiet) as progress:
                report = aot.build(
                    part.wanted,
                    out,
                    targets=targets or part.targets,
                    archs=(archs or part.archs or None) if device else None,
                    settings=replace(config, debug=part.debug, cxxflags=part.cxxflags),
                    progress=progress,
                    executor=farm,
                    shard=shard,
                )
            output().report(show.report, report)
            reports.append(report)
    if page is not None:
        report_page.write(page, [as_json.build(report) for report in reports])
        output().report(click.echo, str(page))
    output().answer(show.lines, [f"problem: {line}" for line in problems])
    output().record({"kernels": [as_json.build(report) for report in reports], "problems": problems})
    if problems:
        raise options.Failure(f"{record}: {counted(len(problems), 'problem')}; all else was built")
