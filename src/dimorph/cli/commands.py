"""The commands of `dimorph`: each parses its arguments, calls the library and shows the result."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from dimorph import __version__, aot
from dimorph import settings as configuration
from dimorph.aot import cmake_package
from dimorph.aot.workers import workers
from dimorph.cli import as_json, doctor, explain, ide, new, options, show, stub, use
from dimorph.cli import report as report_page
from dimorph.cli.cache import cache
from dimorph.cli.options import output, with_json
from dimorph.cli.package import package
from dimorph.cli.sbom import sbom
from dimorph.cli.settings_texts import documentation
from dimorph.declare.instantiations import InstantiationSet, instantiate
from dimorph.errors import counted
from dimorph.source.config_header import config_header


class _Program(options.Group):
    """The command `dimorph`, whose help lists the settings."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings, from the text under each field of `Settings`."""
        with formatter.section("Settings, as environment variables"):
            texts = documentation()
            formatter.write_dl([(configuration.variable(name), text) for name, text in texts.items()])


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dimorph")
def dimorph() -> None:
    """C++ kernels written once, compiled just in time or ahead of time.

    PACKAGE_OR_FILE declares the kernels: an importable module (mypkg.kernels) or the path of a Python file. AXIS=VALUE
    fixes an axis to one value or to a list of values; axes that are not named keep their declared values. A variant
    that the kernel does not declare is MODULE_OR_FILE:NAME.

    Exit status: 0: success. 1: the command failed, or found a problem. 2: wrong usage.
    """


dimorph.add_command(cache)
dimorph.add_command(use.record)
dimorph.add_command(use.cover)
dimorph.add_command(package)
dimorph.add_command(sbom)


@dimorph.command("list")
@options.spec
@with_json
def list_(spec: str) -> None:
    """List the kernels of a module or file, with axes and variants.

    \b
    dimorph list skeleton.py
    dimorph list mypkg.kernels:affine --json
    """
    found = [as_json.kernel(instantiate(kernel)) for kernel in options.kernels(spec)]
    output().answer(show.kernels, found)
    output().record({"kernels": found})


@dimorph.command("new")
@click.argument("name")
@click.option("--cuda", is_flag=True, help="Make a kernel for the GPU.")
@with_json
def new_command(name: str, cuda: bool) -> None:
    """Make a project with one kernel in a new directory NAME.

    It has a package NAME with the kernel NAME, tests, a benchmark, a workflow for GitHub Actions, and makes a wheel.
    Its README says how to go on. An existing directory must be empty.

    \b
    dimorph new my_kernel
    dimorph new my_kernel --cuda
    """
    if problem := new.name_problem(name, cuda=cuda):
        raise click.BadParameter(problem, param_hint="NAME")
    files = new.create(name, Path.cwd(), cuda=cuda)
    output().report(show.lines, [str(file) for file in files])
    output().report(show.lines, [f"next: cd {name} && pip install --editable '.[dev]' && pytest"])
    output().record({"directory": str(Path.cwd() / name), "files": [str(file) for file in files]})


@dimorph.command("verify")
@options.spec
@options.directory("--out", required=True, help="The directory that was built into.")
@with_json
def prove(spec: str, out: Path) -> None:
    """Prove what a directory built ahead of time covers.

    Compares the keys of the present sources, and the checksums of the artifacts, with the manifest. It needs no
    compiler. Exit status 1: an artifact is missing, damaged, outdated or not in the manifest.
    """
    coverage = aot.verify(options.kernels(spec), out)
    output().report(show.lines, coverage.covered)
    output().answer(show.lines, [f"problem: {line}" for line in coverage.problems])
    output().record(as_json.coverage(coverage))
    if not coverage.ok:
        raise options.Failure(f"{out}: {counted(len(coverage.problems), 'problem')}")


@dimorph.command()
@options.optional_selection
@options.file("--from", "record", help="A record of use: build what it names, for the levels that it was recorded for.")
@options.directory("--out", help="The directory to build into.")
@options.directory(
    "--cmake",
    help="The directory to leave a CMake package in, for programs in C, C++ and Rust, without Python.",
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
@click.option(
    "--executor",
    metavar="MODULE:NAME",
    help="Compile on a concurrent.futures.Executor, such as one of Dask: the executor, or a function without arguments "
    "that makes it. Its workers need Dimorph and a compiler.",
)
@click.option(
    "--shard",
    callback=options.shard,
    metavar="NUMBER/COUNT",
    help="Build one of COUNT parts of equal size, e.g. 3/8, without a manifest. A build of the whole into the "
    "directories of all parts, copied together, completes them.",
)
@click.option(
    "--report",
    "page",
    callback=options.page,
    metavar="FILE.html",
    help="Write a page about the build: a timeline by worker, seconds and bytes of each artifact, coverage, device "
    "code, what was reused and why the rest was not, and what changed. It needs no other file.",
)
@with_json
def build(
    spec: str | None,
    values: tuple[str, ...],
    record: Path | None,
    out: Path | None,
    cmake: Path | None,
    targets: tuple[str, ...],
    archs: tuple[str, ...],
    executor: str | None,
    shard: tuple[int, int] | None,
    page: Path | None,
) -> None:
    """Build kernels ahead of time.

    --out is for Python, --cmake for programs without it; give one or both. Loads find the artifacts in a directory
    _dimorph beside a kernel's sources, and in directories that DIMORPH_SHARED_STORES names. Artifacts that the
    directory already holds are kept; only missing ones are compiled. A build that was interrupted, or killed, goes on
    where it was.

    \b
    dimorph build skeleton.py --out _dimorph
    dimorph build mypkg.kernels:affine head_dim=64,128 --out _dimorph
    dimorph build mypkg.kernels:rms --arch sm_80 --arch sm_90a --out _dimorph
    dimorph build mypkg.kernels --target x86-64-v3 --cmake /opt/mypkg
    dimorph build mypkg.kernels --executor cluster.py:executor --out _dimorph
    dimorph build --from use.json --out _dimorph
    """
    if record is not None:
        use.build(
            record,
            [*filter(None, [spec]), *values, *(["--cmake"] if cmake else [])],
            out,
            targets,
            archs,
            executor,
            shard,
            page,
        )
        return
    if spec is None:
        raise click.UsageError("expected PACKAGE_OR_FILE, or --from with a record of use")
    place = out or cmake
    if place is None:
        raise click.UsageError("expected --out or --cmake, or both")
    if shard and cmake:
        raise click.UsageError("expected --shard or --cmake, got both: a CMake package is made of the whole")
    config, sets = options.settings(), options.sets(spec, values)
    _check_archs(sets, archs)
    built = []
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="dimorph-"))
        farm = stack.enter_context(workers(options.executor(executor))) if executor else None
        for instantiations in sets:
            with show.progress(instantiations.kernel.name, output().quiet) as progress:
                report = aot.build(
                    instantiations,
                    out or Path(temporary),
                    targets=targets or None,
                    archs=archs or None,
                    settings=config,
                    progress=progress,
                    executor=farm,
                    shard=shard,
                )
            output().report(show.report, replace(report, out=place))
            built.append((instantiations, report))
        if cmake is not None:
            named = [*(("--target", name) for name in targets), *(("--arch", name) for name in archs)]
            words = [spec, *values, *(word for pair in named for word in pair)]
            output().report(click.echo, str(cmake_package.write(cmake, words, built, config)))
    if page is not None:
        report_page.write(page, [as_json.build(replace(one, out=place)) for _, one in built])
        output().report(click.echo, str(page))
    # The artifacts of a package alone lie in it under names of its own.
    done = [replace(report, out=place, steps=report.steps if out else ()) for _, report in built]
    output().record({"kernels": [as_json.build(report) for report in done]})


def _check_archs(sets: Sequence[InstantiationSet], archs: Sequence[str]) -> None:
    """Refuse architectures for kernels that have no code to compile for them."""
    if archs and not any(instantiations.kernel.device for instantiations in sets):
        names = ", ".join(instantiations.kernel.name for instantiations in sets)
        raise click.UsageError(f"--arch {archs[0]}: expected a kernel with device sources, got {names}")


@dimorph.command()
@options.selection
def header(spec: str, values: tuple[str, ...]) -> None:
    """Print a kernel's generated config header.

    With every axis at one value it is the form that cases are compiled with, otherwise the form that dispatches.

    \b
    dimorph header skeleton.py dtype=float32 head_dim=128
    """
    instantiations = options.one(spec, values)
    click.echo(config_header(instantiations, "case" if instantiations.specialized else "entry"), nl=False)


@dimorph.command("explain")
@options.selection
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
@with_json
def explain_command(spec: str, values: tuple[str, ...], policy: str | None, against: str | None) -> None:
    """Show which artifacts a load would use, and why others do not serve.

    Nothing is compiled or loaded. If a store holds the same unit under another key, the difference is shown: a changed
    source, flag, target or header. Exit status 1: a load would fail.

    \b
    dimorph explain skeleton.py dtype=float32 head_dim=128
    dimorph explain skeleton.py --policy aot
    dimorph explain skeleton.py dtype=float32 head_dim=128 --against 3f9a02
    """
    config = options.settings()
    if against is not None:
        if policy is not None:
            raise click.UsageError("expected --policy or --against, got both: keys are the same under every policy")
        differences = _differences(spec, values, against, config)
        output().answer(show.lines, differences)
        output().record({"differences": differences})
        return
    chosen = policy or config.policy
    verdicts = explain.explain(options.one(spec, values), config, chosen)
    output().answer(show.verdicts, verdicts)
    output().record(as_json.explanation(verdicts, chosen))
    if any(verdict.fails for verdict in verdicts):
        click.get_current_context().exit(1)


def _differences(spec: str, values: Sequence[str], other: str, config: configuration.Settings) -> list[str]:
    instantiations = options.one(spec, values)
    axis, equals, _ = other.partition("=")
    if not equals:
        return explain.against(instantiations, other, config)
    changed = [*(word for word in values if word.partition("=")[0] != axis), other]
    return explain.between(instantiations, options.one(spec, changed), config)


@dimorph.command("doctor")
@with_json
def doctor_command() -> None:
    """Check this machine, and show how to mend each problem.

    Checked are settings, compilers, stores, GPUs and optional packages. Exit status 1: there is a problem.
    """
    found = []
    for finding in doctor.examine():
        (output().answer if finding.state == "wrong" else output().report)(show.finding, finding)
        found.append(finding)
    wrong = sum(finding.state == "wrong" for finding in found)
    output().report(click.echo, counted(wrong, "problem") if wrong else "no problems")
    output().record({"ok": not wrong, "findings": [as_json.finding(finding) for finding in found]})
    if wrong:
        click.get_current_context().exit(1)


@dimorph.command("ide")
@options.selection
@options.directory(
    "--dir",
    "directory",
    help="Where compile_commands.json goes. Default: the project that the kernel is in.",
)
@with_json
def ide_command(spec: str, values: tuple[str, ...], directory: Path | None) -> None:
    """Let clangd, and editors that use it, understand a kernel's sources.

    Writes compile_commands.json, keeping what others put there, and the config headers below .dimorph, which git
    ignores. With every axis at one value the entry is shown specialized, otherwise dispatching; cases are shown for
    the first combination. Repeat it when the declaration or the includes change.

    \b
    dimorph ide skeleton.py
    dimorph ide skeleton.py dtype=float64 head_dim=256
    """
    config = options.settings()
    done = []
    for instantiations in options.sets(spec, values):
        kernel = instantiations.kernel
        place = directory or ide.project_directory(kernel)
        written = ide.write(instantiations, place, config)
        output().report(show.written, kernel.name, written, place)
        done.append(as_json.written(kernel.name, written))
    output().record({"kernels": done})


@dimorph.command("stub")
@options.spec
@options.directory("--out", help="Where the stub goes. Default: beside the file.")
@with_json
def stub_command(spec: str, out: Path | None) -> None:
    """Write a type stub (.pyi) for a file that declares kernels.

    With it, mypy and pyright know the axes, their values and the functions: they report a misspelt axis and a wrong
    argument in code that imports the file. Repeat it when declarations or entries change.

    \b
    dimorph stub skeleton.py
    """
    written = [str(path) for path in stub.write(options.kernels(spec), out)]
    output().report(show.lines, written)
    output().record({"files": written})


@dimorph.command()
def demo() -> None:
    """Embed sentences with both forms of attention, and compare the results."""
    try:
        from dimorph.demo import run

        status = run(show.console(quiet=output().quiet))
    except ModuleNotFoundError as error:
        needs = f"the demo needs {error.name}: pip install 'dimorph[demo]'" if error.name else str(error)
        raise options.Failure(needs) from error
    click.get_current_context().exit(status)
