"""The commands of `dimorph`: each parses its arguments, calls the library and shows the result."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from dimorph import __version__, aot
from dimorph import settings as configuration
from dimorph.aot import cmake_package
from dimorph.aot.discover import load_kernels
from dimorph.cli import doctor, explain, ide, show
from dimorph.declare.declaration import Declaration
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.errors import DimorphError, counted
from dimorph.settings import Settings
from dimorph.source.config_header import config_header
from dimorph.store.layers import user_store
from dimorph.store.store import Broken, is_content_error

_Wrapped = TypeVar("_Wrapped", bound=Callable[..., Any])


class _Failure(click.ClickException):
    """A failure that is shown as its plain message; exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


class _Group(click.Group):
    """A group of commands that shows an expected error as its message, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DimorphError, OSError) as error:
            raise _Failure(str(error)) from error

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings, from the text under each field of `Settings`."""
        with formatter.section("Settings, as environment variables"):
            texts = configuration.documentation()
            formatter.write_dl([(configuration.variable(name), text) for name, text in texts.items()])


def _amount(read: Callable[[str], float]) -> Callable[[str], float]:
    """Return a reader of sizes or ages of the settings for use as the type of an option."""

    def checked(text: str) -> float:
        try:
            return read(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return checked


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


def _selection(command: _Wrapped) -> _Wrapped:
    """Add the arguments that name a kernel and values of its axes."""
    command = click.argument("values", metavar="[AXIS=VALUE[,VALUE...]]...", nargs=-1)(command)
    return click.argument("spec", metavar="PACKAGE_OR_FILE[:KERNEL]")(command)


def _settings() -> Settings:
    try:
        return configuration.current()
    except ValueError as error:
        raise _Failure(str(error)) from error


def _kernels(spec: str) -> list[Declaration]:
    # A module may print during its import, which must not mix with the output of the command.
    with redirect_stdout(sys.stderr):
        return load_kernels(spec)


def _sets(spec: str, values: Sequence[str]) -> list[InstantiationSet]:
    """Return the instantiation set of every kernel that `spec` names."""
    given = _parsed(values)
    return [instantiate(kernel, given) for kernel in _kernels(spec)]


def _one(spec: str, values: Sequence[str]) -> InstantiationSet:
    kernels = _kernels(spec)
    if len(kernels) > 1:
        names = ", ".join(f"{spec}:{kernel.name}" for kernel in kernels)
        raise click.UsageError(f"{spec} declares several kernels; name one: {names}")
    return instantiate(kernels[0], _parsed(values))


def _parsed(values: Iterable[str]) -> dict[str, str | list[str]]:
    given: dict[str, str | list[str]] = {}
    for word in values:
        name, equals, texts = word.partition("=")
        if not equals or not name or not texts:
            raise click.UsageError(f"expected AXIS=VALUE[,VALUE...], got {word!r}")
        if name in given:
            raise click.UsageError(f"axis {name} is given twice; several values are {name}=A,B")
        listed = texts.split(",")
        given[name] = listed if len(listed) > 1 else texts
    return given


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dimorph")
def dimorph() -> None:
    """C++ kernels written once, compiled just in time or ahead of time.

    PACKAGE_OR_FILE declares the kernels: an importable module (mypkg.kernels) or the path of a Python file. AXIS=VALUE
    fixes an axis to one value or to a list of values; axes that are not named keep their declared values.

    Exit status: 0: success. 1: the command failed, or found a problem. 2: wrong usage.
    """


@dimorph.command("verify")
@click.argument("spec", metavar="PACKAGE_OR_FILE[:KERNEL]")
@click.option("--out", type=_directory, metavar="DIRECTORY", required=True, help="The directory that was built into.")
def prove(spec: str, out: Path) -> None:
    """Prove what a directory built ahead of time covers.

    Compares the keys of the present sources, and the checksums of the artifacts, with the manifest. It needs no
    compiler. Exit status 1: an artifact is missing, damaged, outdated or not in the manifest.
    """
    coverage = aot.verify(_kernels(spec), out)
    show.console().print(str(coverage), markup=False, highlight=False)
    if not coverage.ok:
        raise _Failure(f"{out}: {counted(len(coverage.problems), 'problem')}")


@dimorph.command()
@_selection
@click.option("--out", type=_directory, metavar="DIRECTORY", help="The directory to build into.")
@click.option(
    "--cmake",
    type=_directory,
    metavar="DIRECTORY",
    help="The directory to leave a CMake package in, for programs in C, C++ and Rust that run without Python.",
)
@click.option(
    "--target", "targets", multiple=True, metavar="LEVEL", help="A target level to build for; may be repeated."
)
@click.option(
    "--arch",
    "archs",
    multiple=True,
    metavar="ARCH",
    help="A GPU architecture to build for, e.g. sm_90a; may be repeated. Default: those that the kernel declares.",
)
def build(
    spec: str,
    values: tuple[str, ...],
    out: Path | None,
    cmake: Path | None,
    targets: tuple[str, ...],
    archs: tuple[str, ...],
) -> None:
    """Build kernels ahead of time, into the directory --out, or as a CMake package, or both.

    Loads find the artifacts in a directory _dimorph beside a kernel's sources, and in directories that
    DIMORPH_SHARED_STORES names. Artifacts that the directory already holds are kept; only missing ones are compiled.

    \b
    dimorph build skeleton.py --out _dimorph
    dimorph build mypkg.kernels:affine head_dim=64,128 --out _dimorph
    dimorph build mypkg.kernels:rms --arch sm_80 --arch sm_90a --out _dimorph
    dimorph build mypkg.kernels --target x86-64-v2 --target x86-64-v3 --cmake /opt/mypkg
    """
    if out is None and cmake is None:
        raise click.UsageError("expected --out or --cmake, or both")
    config = _settings()
    sets = _sets(spec, values)
    built = []
    with tempfile.TemporaryDirectory(prefix="dimorph-") as temporary:
        for instantiations in sets:
            with show.progress(instantiations.kernel.name) as progress:
                report = aot.build(
                    instantiations,
                    out or Path(temporary),
                    targets=targets or None,
                    archs=archs or None,
                    settings=config,
                    progress=progress,
                )
            show.report(report)
            built.append((instantiations, report))
        if cmake is not None:
            words = [word for name in targets for word in ("--target", name)]
            words += [word for name in archs for word in ("--arch", name)]
            command = shlex.join(["dimorph", "build", spec, *values, *words, "--cmake", str(cmake)])
            click.echo(str(cmake_package.write(cmake, spec, built, command, config)))


@dimorph.command()
@_selection
def header(spec: str, values: tuple[str, ...]) -> None:
    """Print a kernel's generated config header.

    With every axis at one value it is the form that cases are compiled with, otherwise the form that dispatches.

    \b
    dimorph header skeleton.py dtype=float32 head_dim=128
    """
    instantiations = _one(spec, values)
    click.echo(config_header(instantiations, "case" if instantiations.specialized else "entry"), nl=False)


@dimorph.command("explain")
@_selection
@click.option(
    "--policy",
    type=click.Choice(configuration.POLICIES),
    help="The policy of the load. Default: the policy of the settings.",
)
@click.option(
    "--against",
    metavar="OTHER",
    help="Show how the keys differ from those of OTHER: the first digits of a key, the directory of an artifact, or "
    "AXIS=VALUE[,VALUE...].",
)
def explain_command(spec: str, values: tuple[str, ...], policy: str | None, against: str | None) -> None:
    """Show which artifacts a load would use, and why others do not serve.

    Nothing is compiled or loaded. If a store holds the same unit under another key, the difference is shown: a changed
    source, flag, target or header. Exit status 1: a load would fail.

    \b
    dimorph explain skeleton.py dtype=float32 head_dim=128
    dimorph explain skeleton.py --policy aot
    dimorph explain skeleton.py dtype=float32 head_dim=128 --against 3f9a02
    """
    config = _settings()
    instantiations = _one(spec, values)
    if against is not None:
        if "=" in against:
            lines = explain.between(instantiations, _one(spec, _changed(values, against)), config)
        else:
            lines = explain.against(instantiations, against, config)
        show.lines(lines)
        return
    verdicts = explain.explain(instantiations, config, policy or config.policy)
    show.verdicts(verdicts)
    if any(verdict.fails for verdict in verdicts):
        click.get_current_context().exit(1)


def _changed(values: Sequence[str], other: str) -> list[str]:
    """Return the values with those of one axis replaced."""
    name = other.partition("=")[0]
    return [*(word for word in values if word.partition("=")[0] != name), other]


@dimorph.group()
def cache() -> None:
    """Inspect and clean the store of this machine's artifacts."""


@cache.command()
def path() -> None:
    """Print the store's directory."""
    click.echo(user_store(_settings()).root)


@cache.command("list")
def list_() -> None:
    """List the artifacts in the store, by kernel."""
    store = user_store(_settings())
    show.entries(list(store.entries()), store.usage())


@cache.command()
def verify() -> None:
    """Verify every checksum in the store. Exit status 1: an artifact cannot be used."""
    store = user_store(_settings())
    broken = store.verify()
    count = sum(1 for _ in store.entries())
    show.lines([f"{_blame(item)}: {item.error}" for item in broken])
    click.echo(f"{store.root}: {counted(count, 'artifact')}, {len(broken)} broken")
    if broken:
        click.get_current_context().exit(1)


def _blame(item: Broken) -> str:
    return "corrupt, rebuilt when it is next needed" if is_content_error(item.error) else "not usable"


@cache.command()
@click.option(
    "--max-size", metavar="SIZE", type=_amount(configuration.size), help="The size that the store may keep, e.g. 1GB."
)
@click.option(
    "--max-age",
    metavar="AGE",
    type=_amount(configuration.age),
    help="The longest time since its last use that an artifact may have, e.g. 30d.",
)
def prune(max_size: float | None, max_age: float | None) -> None:
    """Remove old and broken artifacts, and the leftovers of killed builds.

    With --max-size the least recently used artifacts go first.

    \b
    dimorph cache prune --max-size 1GB
    dimorph cache prune --max-age 30d
    """
    if max_size is None and max_age is None:
        raise click.UsageError("expected --max-size or --max-age, or both")
    store = user_store(_settings())
    corrupt = store.remove_corrupt()
    removed = store.prune(
        None if max_size is None else int(max_size), None if max_age is None else timedelta(seconds=max_age)
    )
    swept = store.sweep()
    gone = f"{counted(len(removed), 'artifact')} ({show.size(sum(usage.size for usage in removed))})"
    gone += f", {corrupt} that could not be used" if corrupt else ""
    gone += f", {counted(swept, 'directory', 'directories')} of killed builds" if swept else ""
    click.echo(f"{store.root}: removed {gone}; {show.size(store.size())} left")


@dimorph.command("doctor")
def doctor_command() -> None:
    """Check this machine, and show how to mend each problem.

    Checked are settings, compilers, stores, GPUs and optional packages. Exit status 1: there is a problem.
    """
    wrong = 0
    for finding in doctor.examine():
        show.finding(finding)
        wrong += finding.state == "wrong"
    click.echo(counted(wrong, "problem") if wrong else "no problems")
    if wrong:
        click.get_current_context().exit(1)


@dimorph.command("ide")
@_selection
@click.option(
    "--dir",
    "directory",
    type=_directory,
    metavar="DIRECTORY",
    help="Where compile_commands.json goes. Default: the project that the kernel is in.",
)
def ide_command(spec: str, values: tuple[str, ...], directory: Path | None) -> None:
    """Let clangd, and editors that use it, understand a kernel's sources.

    Writes compile_commands.json, keeping what others put there, and the config headers below .dimorph, which git
    ignores. With every axis at one value the entry is shown specialized, otherwise dispatching; cases are shown for
    the first combination. Repeat it when the declaration or the includes change.

    \b
    dimorph ide skeleton.py
    dimorph ide skeleton.py dtype=float64 head_dim=256
    """
    config = _settings()
    for instantiations in _sets(spec, values):
        place = directory or ide.project_directory(instantiations.kernel)
        written = ide.write(instantiations, place, config)
        show.lines([str(file) for file in written.files])
        kept = f", {counted(written.kept, 'other entry', 'other entries')} kept" if written.kept else ""
        click.echo(f"{instantiations.kernel.name}: {written.database}{kept}")
        outside = [file for file in written.files if not file.is_relative_to(place.resolve())]
        if outside:
            click.echo(f"{counted(len(outside), 'file')} outside of {place}; start clangd there with", err=True)
            click.echo(f"  --compile-commands-dir={place.resolve()}", err=True)


@dimorph.command()
def demo() -> None:
    """Embed sentences with both forms of attention, and compare the results."""
    try:
        from dimorph.demo import run

        status = run(show.console())
    except ModuleNotFoundError as error:
        needs = f"the demo needs {error.name}: pip install 'dimorph[demo]'" if error.name else str(error)
        raise _Failure(needs) from error
    click.get_current_context().exit(status)
