"""Arguments and options that several commands share, and the two forms of output: text, or JSON with `--json`."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from dimorph import settings as configuration
from dimorph._lazy import show_log
from dimorph.aot.discover import load_kernels, load_object, variant_named
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.errors import DimorphError
from dimorph.settings import Settings

_Wrapped = TypeVar("_Wrapped", bound=Callable[..., Any])

# Keys of `click.Context.meta`, which a command shares with the groups that it is in.
_QUIET, _VERBOSE, _JSON = "dimorph.quiet", "dimorph.verbose", "dimorph.json"


class Failure(click.ClickException):
    """A failure that is shown as its plain message; exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


class Output(NamedTuple):
    """How the running command shows what it has to say.

    Attributes:
        json: True if its result is one JSON object on standard output, and nothing else is there.
        quiet: True if it shows results that were asked for, and errors, but no progress, warning or report of success.
    """

    json: bool
    quiet: bool

    def report(self, show: Callable[..., object], *args: Any) -> None:
        """Show what the command has done, as text."""
        if not self.quiet:
            self.answer(show, *args)

    def answer(self, show: Callable[..., object], *args: Any) -> None:
        """Show what the command was asked for, or a problem, as text."""
        if not self.json:
            show(*args)

    def record(self, result: object) -> None:
        """Print the result as JSON, if it is wanted."""
        if self.json:
            click.echo(json.dumps(result, indent=2))


def output() -> Output:
    """Return the output of the running command."""
    meta = click.get_current_context().meta
    return Output(meta.get(_JSON, False), meta.get(_QUIET, False))


class Command(click.Command):
    """A command with the options that every command has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common()


class Group(click.Group):
    """A group with the options that every command has; its commands show expected errors without a traceback."""

    command_class = Command
    group_class = type  # a group in it is of the same class

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, click.ClickException, click.Abort, click.exceptions.Exit):
            raise  # click ends the program; where the reader has left, without a word
        except Exception as error:
            output().record({"error": {"type": type(error).__name__, "message": str(error)}})
            if isinstance(error, (DimorphError, OSError)):
                raise Failure(str(error)) from error
            raise  # the module that declares the kernels has failed: its traceback says where


def _common() -> list[click.Option]:
    """Return new -q and -v, which count before and after the name of a command."""
    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_keep(_QUIET),
            help="Show only what was asked for, and errors: no progress, warnings or reports of success.",
        ),
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            callback=_keep(_VERBOSE),
            help="Log where artifacts are found, and why others do not serve; -vv: compilers' command lines, too.",
        ),
    ]


def _keep(key: str) -> Callable[[click.Context, click.Parameter, int], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: int) -> None:
        if value:
            ctx.meta[key] = ctx.meta.get(key, 0) + value
            if ctx.meta.get(_QUIET) and ctx.meta.get(_VERBOSE):
                raise click.UsageError("expected --quiet or --verbose, got both", ctx)
            show_log(_level(ctx))

    return callback


def _level(ctx: click.Context) -> str | None:
    """Return the lowest level of log records to show; None: that of the settings."""
    if ctx.meta.get(_QUIET):
        return "error"
    return {0: None, 1: "info"}.get(ctx.meta.get(_VERBOSE, 0), "debug")


def with_json(command: _Wrapped) -> _Wrapped:
    """Add `--json`, for a command that shows its result by `output()`."""

    def callback(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[_JSON] = value

    text = "Print the result as one JSON object."
    return click.option("--json", is_flag=True, expose_value=False, is_eager=True, callback=callback, help=text)(
        command
    )


def settings() -> Settings:
    """Return the settings of the environment, with the log level that -q and -v ask for."""
    try:
        config = configuration.current()
    except ValueError as error:
        raise DimorphError(str(error)) from error
    level = _level(click.get_current_context()) or config.log
    show_log(level)
    return replace(config, log=level)


def amount(read: Callable[[str], float]) -> Callable[[str], float]:
    """Return a reader of sizes or ages of the settings for use as the type of an option."""

    def checked(text: str) -> float:
        try:
            return read(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return checked


def shard(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Read `NUMBER/COUNT`."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise click.BadParameter(f"expected a part and the number of parts, such as 3/8, got {text!r}")
    return number, count


def page(_: click.Context, __: click.Parameter, text: str | None) -> Path | None:
    """Read the path of a file to write, in a directory that exists."""
    if text is None:
        return None
    path = Path(text)
    # Another file, such as a source, is not to be lost.
    if path.suffix != ".html" or path.is_dir() or not path.parent.is_dir():
        raise click.BadParameter(f"expected a file that ends in .html, in a directory that exists, got {text!r}")
    return path


def executor(spec: str) -> Any:
    """Import the executor, or the function that makes one, that MODULE:NAME names."""
    with printing_to_stderr():
        return load_object(spec)


def directory(*names: str, required: bool = False, help: str) -> Callable[[_Wrapped], _Wrapped]:
    """Add an option that takes a directory."""
    return click.option(
        *names, type=_directory, metavar="DIRECTORY", required=required, shell_complete=_completed("dir"), help=help
    )


def _directory(text: str) -> Path:
    """Read the path of a directory, which need not exist; `~` is replaced, as no shell does it after `--out=`."""
    if not text:
        raise click.BadParameter("expected a directory, got ''")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise click.BadParameter(f"no user has the name in {text!r}; if it is a directory, write ./{text}") from error
    if path.exists() and not path.is_dir():
        raise click.BadParameter(f"expected a directory, {text!r} is a file")
    return path


def _completed(kind: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """Return a function that lets the shell complete the name of a `file` or a `dir`."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem  # here, because only a shell that completes needs it

        return [CompletionItem(incomplete, type=kind)]

    return complete


def spec(command: _Wrapped) -> _Wrapped:
    """Add the argument that names a module or file, or a kernel in it."""
    named = click.argument("spec", metavar="PACKAGE_OR_FILE[:KERNEL]", shell_complete=_completed("file"))
    return named(command)


def selection(command: _Wrapped) -> _Wrapped:
    """Add the arguments that name a kernel and values of its axes."""
    return spec(_values(command))


def optional_selection(command: _Wrapped) -> _Wrapped:
    """Add the same for a command that an option can tell what to do instead."""
    named = click.argument(
        "spec", metavar="[PACKAGE_OR_FILE[:KERNEL]]", required=False, shell_complete=_completed("file")
    )
    return named(_values(command))


def _values(command: _Wrapped) -> _Wrapped:
    return click.argument("values", metavar="[AXIS=VALUE[,VALUE...]]...", nargs=-1)(command)


def file(*names: str, help: str) -> Callable[[_Wrapped], _Wrapped]:
    """Add an option that takes a file."""
    kind = click.Path(path_type=Path)
    return click.option(*names, type=kind, metavar="FILE", shell_complete=_completed("file"), help=help)


def levels(command: _Wrapped) -> _Wrapped:
    """Add --target and --arch, each of which may be repeated."""
    target = click.option(
        "--target", "targets", multiple=True, metavar="LEVEL", help="A target level; may be repeated."
    )
    arch = click.option("--arch", "archs", multiple=True, metavar="ARCH", help="A GPU architecture; may be repeated.")
    return target(arch(command))


def kernels(spec: str) -> list[Declaration]:
    """Load the kernels that a spec names; whatever their module prints goes to standard error."""
    with printing_to_stderr():
        return load_kernels(spec)


@contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Let modules that are imported meanwhile, and programs that they start, print without mixing with the output."""
    sys.stdout.flush()
    with redirect_stdout(sys.stderr), _descriptor_to_stderr():
        yield


@contextmanager
def _descriptor_to_stderr() -> Iterator[None]:
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def sets(spec: str, values: Sequence[str]) -> list[InstantiationSet]:
    """Return the instantiation set of every kernel that `spec` names."""
    given = _parsed(values)
    return [instantiate(kernel, _with_variants(kernel, given)) for kernel in kernels(spec)]


def one(spec: str, values: Sequence[str]) -> InstantiationSet:
    """Return the instantiation set of the only kernel that `spec` names."""
    found = kernels(spec)
    if len(found) > 1:
        names = ", ".join(f"{spec}:{kernel.name}" for kernel in found)
        raise click.UsageError(f"{spec} declares several kernels; name one: {names}")
    return instantiate(found[0], _with_variants(found[0], _parsed(values)))


def _parsed(values: Iterable[str]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for word in values:
        name, equals, texts = word.partition("=")
        if not equals or not name or not texts:
            raise click.UsageError(f"expected AXIS=VALUE[,VALUE...], got {word!r}")
        if name in given:
            raise click.UsageError(f"axis {name} is given twice; several values are {name}=A,B")
        given[name] = _listed(texts)
    return given


def _listed(texts: str) -> list[str]:
    """Split values at commas, but not the text of a variant that no variable holds, which is an object of JSON."""
    found, rest = [], f",{texts}"
    while rest:
        rest = rest[1:]
        end = rest.find(",") if "," in rest else len(rest)
        if rest.startswith("{"):
            try:
                end = json.JSONDecoder().raw_decode(rest)[1]
            except ValueError as error:
                raise click.UsageError(f"expected a value, or the description of a variant, got {rest!r}") from error
            if rest[end:] and rest[end] != ",":
                raise click.UsageError(f"expected a comma behind the description of a variant, got {rest[end:]!r}")
        found.append(rest[:end])
        rest = rest[end:]
    return found


def _with_variants(kernel: Declaration, given: Mapping[str, list[str]]) -> dict[str, object]:
    """Return values with the variants that are named by their modules, files or descriptions."""
    found: dict[str, object] = {name: texts if len(texts) > 1 else texts[0] for name, texts in given.items()}
    for axis in kernel.axes:
        if axis.for_cases_only and axis.name in given:
            with printing_to_stderr():
                found[axis.name] = [
                    variant_named(text) if ":" in text and not axis.is_found_by(text) else text
                    for text in given[axis.name]
                ]
    return found
