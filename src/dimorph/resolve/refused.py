"""The errors for sources that the compiler refuses, or that are refused before it runs."""

from __future__ import annotations

from dimorph._lazy import logger
from dimorph.errors import BuildError
from dimorph.plan.unit import Unit
from dimorph.resolve.author import Author
from dimorph.resolve.before import mistake
from dimorph.resolve.mistakes import Lesson, explain
from dimorph.toolchain.compiler import Compiler
from dimorph.toolchain.diagnostics import Finding, Place, findings
from dimorph.toolchain.missing_header import advice
from dimorph.toolchain.process import Completed

_log = logger("dimorph")


def error(done: Completed, unit: Unit, compiler: Compiler) -> BuildError:
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
        "\n  ".join(lines),
        command=done.command,
        exit_code=done.exit_code,
        output=done.output,
        context=unit.label,
    )


def check(unit: Unit) -> None:
    """Refuse sources with a mistake that would compile.

    Raises:
        BuildError: there is one; the message names its place, the cause and the cure.
    """
    author = Author(unit)
    if lesson := mistake(author):
        lines = _lines(lesson.place or author.top(), lesson, author)
        raise BuildError("\n  ".join([*lines, f"before compiling {unit.label}"]), context=unit.label)


def _explained(errors: list[Finding], author: Author) -> list[str]:
    if known := explain(errors, author):
        finding, lesson = known
        place = lesson.place or author.first(finding.places) or author.top()
        return _lines(place, lesson, author)
    finding = errors[0]
    head = finding.head
    place = author.first(finding.places) or Place(head.file, head.line)
    # The compiler's own words: the author's line, and the first note about another place of the author's.
    located = f"{place.file}:{place.line}: " if place.line else ""
    lines = [f"{located}{head.severity}: {head.message}"]
    if quoted := author.line(place):
        lines.append(f"  {quoted}")
    notes = [note for note in finding.notes if author.owns(note.file) and Place(note.file, note.line) != place]
    lines += [f"{note.file}:{note.line}: note: {note.message}" for note in notes[:1]]
    return lines


def _lines(place: Place, lesson: Lesson, author: Author) -> list[str]:
    lines = [f"{place.file}:{place.line}: error: {lesson.cause}"]
    if quoted := author.line(place):
        lines.append(f"  {quoted}")
    return [*lines, lesson.cure]


def _rest(output: str) -> str:
    count = len(output.splitlines())
    return f"; DIMORPH_LOG=debug shows the {count} lines that it printed" if count else ""
