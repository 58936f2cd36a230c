"""Print results: tables and colours on a terminal, plain lines without wrapping in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dimorph.aot import Report
from dimorph.cli.doctor import Finding
from dimorph.cli.explain import Verdict
from dimorph.cli.ide import Written
from dimorph.errors import counted
from dimorph.resolve.build import Progress as Callback
from dimorph.store.artifact import Artifact
from dimorph.store.store import Broken, Usage

# The most rows of a summary, so that it fits on a screen.
_ROWS = 16
# The width in columns of output that does not go to a terminal.
_WIDE = 200
_MARKS = {"ok": "[green]ok[/green]    ", "absent": "[dim]absent[/dim]", "wrong": "[red]wrong[/red] "}


def console(*, error: bool = False, quiet: bool = False) -> Console:
    """Return a console for standard output or standard error, made anew because tests replace these streams."""
    stream = sys.stderr if error else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _WIDE, quiet=quiet)


def lines(texts: Sequence[str]) -> None:
    """Print lines without markup and wrapping."""
    out = console()
    for text in texts:
        out.print(text, markup=False, soft_wrap=True)


def size(count: float) -> str:
    """Return a number of bytes as a text with a decimal unit, e.g. `1.5 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


@contextmanager
def progress(kernel: str, quiet: bool) -> Iterator[Callback | None]:
    """Show the progress of a build on standard error: a bar on a terminal, elsewhere a line for each compiled unit.

    Args:
        kernel: the name of what is built.
        quiet: True to show nothing; the callback is None then.
    """
    if quiet:
        yield None
        return
    out = console(error=True)
    if not out.is_terminal:
        shown = -1

        def lines(done: int, total: int, label: str) -> None:
            # Called with the number of finished compiles when a compile begins and when one ends.
            nonlocal shown
            if done > shown:
                text = f"[{done}/{total}] {label}" if done else f"{kernel}: compiling {total}"
                out.print(text, markup=False, soft_wrap=True)
            shown = max(shown, done)

        yield lines
        return
    columns = (
        SpinnerColumn(),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task(f"{kernel}: searching", total=None)
        yield lambda done, total, label: bar.update(task, completed=done, total=total, description=escape(label))


def report(done: Report) -> None:
    """Print the result of a build on one screen."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("kind", "values", "target", "key"):
        table.add_column(heading)
    table.add_column("size", justify="right")
    for artifact in done.artifacts[:_ROWS]:
        meta = artifact.meta
        name = meta.kind if meta.kernel == done.kernel else meta.kernel
        row = (name, _values(artifact), meta.target, meta.key[:12])
        table.add_row(*map(escape, row), size(_bytes(artifact)))
    out = console()
    out.print(table)
    if len(done.artifacts) > _ROWS:
        out.print(f"... and {len(done.artifacts) - _ROWS} more")
    out.print(str(done), markup=False, soft_wrap=True)


def verdicts(found: Sequence[Verdict]) -> None:
    """Print the explanation of a load, unit by unit."""
    out = console()
    for verdict in found:
        mark = "[red]x[/red]" if verdict.fails else "[green]*[/green]" if verdict.artifact else "[yellow]+[/yellow]"
        out.print(f"{mark} [bold]{escape(verdict.unit.label)}[/bold]  {verdict.key[:12]}", soft_wrap=True)
        out.print(f"    {escape(verdict.serves)}", soft_wrap=True)
        for line in verdict.passed:
            out.print(f"    not {escape(line)}", soft_wrap=True)
        for line in verdict.near:
            out.print(f"    {escape(line)}", soft_wrap=True)


def entries(found: Sequence[Artifact | Broken], usages: Sequence[Usage]) -> None:
    """Print a table of the artifacts of a store, by kernel."""
    used = {usage.path: usage for usage in usages}
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("kernel", "kind", "values", "target", "compiler", "key"):
        table.add_column(heading)
    for heading in ("size", "last used"):
        table.add_column(heading, justify="right")
    whole = [item for item in found if isinstance(item, Artifact)]
    for artifact in sorted(whole, key=lambda a: (a.meta.kernel, a.meta.kind, _values(a), a.meta.target)):
        meta, usage = artifact.meta, used.get(artifact.path)
        day = f"{usage.used:%Y-%m-%d}" if usage else "?"
        row = (meta.kernel, meta.kind, _values(artifact), meta.target, meta.toolchain, meta.key[:12])
        table.add_row(*map(escape, row), size(_bytes(artifact)), day)
    out = console()
    out.print(table)
    for item in found:
        if isinstance(item, Broken):
            out.print(f"broken: {item.error}", markup=False, soft_wrap=True)
    total = size(sum(usage.size for usage in usages))
    out.print(f"{counted(len(whole), 'artifact')}, {total}", markup=False)


def kernels(found: Sequence[Mapping[str, Any]]) -> None:
    """Print the description of each kernel, which `as_json.kernel` makes."""
    for kernel in found:
        lines([f"{kernel['name']}  {kernel['declared_at']}"])
        rows = [("entry", kernel["entry"])]
        rows += [(key, ", ".join(kernel[key])) for key in ("case", "device", "archs") if kernel[key]]
        for axis in kernel["axes"]:
            more = ", and others that it accepts" if axis["accepts_more"] else " by choice" if axis["chosen"] else ""
            values = f"{{{', '.join(axis['values'])}}}" if axis["values"] else "a value"
            rows.append((f"axis {axis['name']}", f"{values}{more}, as {', '.join(axis['binds'])}"))
        for variant in kernel["variants"]:
            params = ", ".join(param["name"] for param in variant["params"])
            rows.append((f"variant {variant['name']}", f"({params}) in {variant['header']}"))
        rows.append(("in all", counted(kernel["specializations"], "specialization")))
        width = max(len(heading) for heading, _ in rows)
        lines([f"  {heading:<{width}}  {text}" for heading, text in rows])


def written(kernel: str, made: Written, place: Path) -> None:
    """Print what an editor can now open; on standard error, what clangd will not find by itself."""
    lines([str(file) for file in made.files])
    kept = f", {counted(made.kept, 'other entry', 'other entries')} kept" if made.kept else ""
    lines([f"{kernel}: {made.database}{kept}"])
    outside = [file for file in made.files if not file.is_relative_to(place.resolve())]
    if outside:
        out = console(error=True)
        for text in (
            f"{counted(len(outside), 'file')} outside of {place}; start clangd there with",
            f"  --compile-commands-dir={place.resolve()}",
        ):
            out.print(text, markup=False, soft_wrap=True)


def finding(found: Finding) -> None:
    """Print one finding of `doctor`."""
    out = console()
    out.print(f"{_MARKS[found.state]} {found.topic:<24} {escape(found.text)}", soft_wrap=True)
    if found.mend:
        out.print(f"{'':31} -> {escape(found.mend)}", soft_wrap=True)


def _values(artifact: Artifact) -> str:
    return ", ".join(f"{name}={text}" for name, text in artifact.meta.specialization.items())


def _bytes(artifact: Artifact) -> int:
    return sum(record.size for record in artifact.meta.files.values())
