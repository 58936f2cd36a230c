"""The error for a source that the compiler refuses: the mistake that caused it, or the compiler's first error."""

from __future__ import annotations

from dimorph._lazy import logger
from dimorph.errors import BuildError, counted
from dimorph.plan.unit import Unit
from dimorph.resolve.author import Author, message
from dimorph.resolve.mistakes import explain
from dimorph.toolchain.compiler import Compiler
from dimorph.toolchain.diagnostics import Place
from dimorph.toolchain.findings import Finding, findings
from dimorph.toolchain.missing_header import advice
from dimorph.toolchain.process import Completed

_log = logger("dimorph")


def refusal(done: Completed, unit: Unit, compiler: Compiler) -> BuildError:
    """Return the error for a source that the compiler rejected: its first error, or the mistake that causes it."""
    author = Author(unit)
    errors = [one for one in findings(done.output) if "error" in one.head.severity]
    _log.debug("%s printed:\n%s", done.command[0], done.output.rstrip())
    lines = _explained(errors, author) if errors else ["the compiler printed no error"]
    more = f", with {len(errors) - 1} more" if len(errors) > 1 else ""
    lines.append(f"while compiling {unit.label}{more}")
    lines.append(f"with {done.command[0]}, exit code {done.exit_code}{_rest(done.output)}")
    if how := advice(compiler.dialect, done.output):
        lines.append(how)
    return BuildError(
        message(lines),
        command=done.command,
        exit_code=done.exit_code,
        output=done.output,
        context=unit.label,
    )


def _explained(errors: list[Finding], author: Author) -> list[str]:
    if known := explain(errors, author):
        finding, lesson = known
        place = lesson.place or author.first(finding.places) or author.top()
        return author.lines(place, lesson)
    finding = errors[0]
    head = finding.head
    place = author.first(finding.places) or Place(head.file, head.line)
    # The compiler's own words: the author's line, and the first note about another place of the author's.
    located = f"{place.file}:{place.line}: " if place.line else ""
    lines = [f"{located}{head.severity}: {head.message}"]
    if not place.line:  # a linker's reason stands before the error of its driver
        lines += [f"  {text}" for text in finding.text.split(head.message)[0].splitlines()[:-1][:2]]
    if quoted := author.line(place):
        lines.append(f"  {quoted}")
    notes = [note for note in finding.notes if author.owns(note.file) and Place(note.file, note.line) != place]
    lines += [f"{note.file}:{note.line}: note: {note.message}" for note in notes[:1]]
    return lines


def _rest(output: str) -> str:
    count = len(output.splitlines())
    return f"; DIMORPH_LOG=debug shows the {counted(count, 'line')} that it printed" if count else ""
