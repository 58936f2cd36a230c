"""The command line: the output, the effects and the exit status of each command."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dimorph.cli.commands import dimorph
from dimorph.source.config_header import config_header
from dimorph.store.store import Store
from support.cli import Run
from support.skeletons import declared, replace

VALUES = ("dtype=float32", "head_dim=64")
CASE = "affine case (dtype=float32, head_dim=64, variant=Scale)"


# --- The program ---


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_one_line_says_what_to_install(missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; from dimorph.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "doctor"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"dimorph: the command line needs {missing}: pip install 'dimorph[cli]'\n"


def test_the_module_is_the_program() -> None:
    command = [sys.executable, "-m", "dimorph", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"dimorph, version \d+\.\d+\.\d+\n", done.stdout)


def _commands() -> Iterator[list[str]]:
    for name, command in dimorph.commands.items():
        yield [name]
        yield from ([name, inner] for inner in getattr(command, "commands", {}))


@pytest.mark.parametrize("words", [[], *_commands()], ids=" ".join)
def test_every_command_has_help(words: list[str]) -> None:
    result = CliRunner().invoke(dimorph, [*words, "--help"])
    assert result.exit_code == 0
    usage, _, about = result.output.partition("\n\n")
    assert usage.startswith("Usage: ")
    assert re.match(r"  [A-Z].*[.]", about)
    assert not [line for line in result.output.splitlines() if len(line) > 80]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["header", "SPEC", "head_dim"], "expected AXIS=VALUE[,VALUE...], got 'head_dim'"),
        (["header", "SPEC", "head_dim="], "expected AXIS=VALUE[,VALUE...], got 'head_dim='"),
        (["header", "SPEC", "head_dim=64", "head_dim=128"], "axis head_dim is given twice"),
        (["build", "SPEC"], "expected --out or --cmake, or both"),
        (["explain", "SPEC", "--policy", "never"], "Invalid value for '--policy'"),
        (["cache", "prune"], "expected --max-size or --max-age"),
        (["cache", "prune", "--max-size", "1 furlong"], "expected a size such as 500MB or 1GB, got '1 furlong'"),
        (["cache", "prune", "--max-age", "x"], "expected an age such as 12h, 30d or 8w, got 'x'"),
    ],
)
def test_wrong_usage_is_status_2(run: Run, arguments: list[str], message: str) -> None:
    assert message in run(*arguments, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["header", "no_such_module"], "no_such_module: no module of this name"),
        (["header", "nowhere.py"], "nowhere.py: there is no such file"),
        (["header", "SPEC:other"], "no kernel is called 'other'; there are: affine"),
        (["header", "SPEC", "width=3"], "no axis is called 'width'; there are: dtype, head_dim, variant"),
        (
            ["header", "SPEC", "head_dim=3"],
            "axis head_dim: expected one of {64, 128, 256}, or one that `accepts` admits, got 3",
        ),
    ],
)
def test_errors_are_one_message_and_status_1(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments, code=1)
    assert message in result.stderr and "Traceback" not in result.output
    assert result.stdout == ""


def test_a_setting_that_means_nothing_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMORPH_JOBS", "many")
    assert "DIMORPH_JOBS: expected" in run("build", "SPEC", "--out", "out", code=1).stderr
    doctor = run("doctor", code=1)
    assert "DIMORPH_JOBS: expected" in doctor.stdout and "unset DIMORPH_JOBS" in doctor.stdout


# --- header ---


@pytest.mark.parametrize("values", [VALUES, ("head_dim=64,128",), ()], ids=["jit", "narrowed", "aot"])
def test_header_prints_the_header_and_nothing_else(run: Run, root: Path, values: tuple[str, ...]) -> None:
    with (root / "skeleton.py").open("a") as stream:
        stream.write('\nprint("a module that talks when it is imported")\n')
    given = {name: texts.split(",") for name, texts in (word.split("=") for word in values)}
    expected = config_header(declared(root).instantiations(**given), "case" if values == VALUES else "entry")
    result = run("header", "SPEC", *values)
    assert result.stdout_bytes == expected.encode()
    assert "talks" in result.stderr


# The example of the published article that first described this header.
ARTICLE_JIT = r"""
constexpr int HEAD_DIM = 128;
using DTypeQ = half;
#define DISPATCH_head_dim(expr, const_expr, ...) \
  __VA_ARGS__
"""
ARTICLE_AOT = r"""
#define _DISPATCH_CASES_head_dim(case_var, ...) \
  _DISPATCH_CASE(64, case_var, __VA_ARGS__)     \
  _DISPATCH_CASE(128, case_var, __VA_ARGS__)    \
  _DISPATCH_CASE(256, case_var, __VA_ARGS__)
"""
# The additions of the generated header: a check, the constant that a call reads, and the wrapper that makes the body
# one statement.
MARK = r"\[\[maybe_unused\]\] constexpr int DISPATCH_\w+_around_the_call = 0;"
ADDED = re.compile(rf"do {{|::dimorph::detail::expect\(.*\);|{MARK}|}} while \(0\)")


def _essence(header: str) -> list[str]:
    """Return the lines of a header without the added checks, with blanks and line ends in one form."""
    found = [" ".join(line.rstrip("\\").split()).rstrip(";") for line in header.splitlines()]
    return [line for line in found if line and not ADDED.fullmatch(f"{line};") and not ADDED.fullmatch(line)]


@pytest.mark.parametrize(
    ("values", "article"),
    [(("head_dim=128", "dtype_q=float16"), ARTICLE_JIT), (("dtype_q=float16",), ARTICLE_AOT), ((), ARTICLE_AOT)],
    ids=["jit", "aot", "aot-all"],
)
def test_header_of_the_article(run: Run, tmp_path: Path, values: tuple[str, ...], article: str) -> None:
    file = tmp_path / "article.py"
    file.write_text(
        "import dimorph as dm\n"
        'k = dm.Kernel(name="attention", entry="a.cc", case=["a_case.cc"], axes=[\n'
        '    dm.int_axis("head_dim", "HEAD_DIM", [64, 128, 256]),\n'
        '    dm.dtype_axis("dtype_q", "DTypeQ", ["float16", "bfloat16"])])\n'
    )
    lines = _essence(run("header", str(file), *values).stdout)
    wanted = _essence(article)
    # The groups of its lines are contiguous and in its order.
    at = 0
    for group in [wanted[:2], wanted[2:]] if "constexpr" in article else [wanted]:
        starts = [i for i in range(at, len(lines)) if lines[i : i + len(group)] == group]
        assert len(starts) == 1, "\n".join(lines)
        at = starts[0] + len(group)


def test_header_of_several_kernels_asks_which(run: Run, root: Path) -> None:
    with (root / "skeleton.py").open("a") as stream:
        stream.write('\nother = dm.Kernel(name="other", case=[])\n')
    assert re.search(r"name one: .*skeleton\.py:affine, .*skeleton\.py:other", run("header", "SPEC", code=2).stderr)
    assert run("header", "SPEC:affine", *VALUES).stdout.startswith("// affine_config.h")


# --- build ---


def test_build_shows_progress_and_a_summary_and_builds_nothing_twice(run: Run, root: Path) -> None:
    arguments = ["build", "SPEC", "dtype=float32", "head_dim=64,128", "--out", str(root / "_dimorph")]
    first = run(*arguments)
    assert first.stderr.startswith("affine: compiling 3\n")
    assert re.findall(r"^\[(\d)/3\]", first.stderr, re.M) == ["1", "2", "3"]
    assert f"/3] {CASE}" in first.stderr
    assert "affine: 3 compiled, 0 reused" in first.stdout and str(root / "_dimorph") in first.stdout
    assert "head_dim=128" in first.stdout
    assert len(first.stdout.splitlines()) < 24
    again = run(*arguments)
    assert "affine: 0 compiled, 3 reused" in again.stdout and "[" not in again.stderr
    served = run("explain", "SPEC", "dtype=float32", "head_dim=64,128", "--policy", "aot").stdout
    assert served.count(f"packaged ({root / '_dimorph'}), for ") == 3


def test_verify_proves_what_is_covered_and_finds_what_is_not(run: Run, root: Path) -> None:
    out = root / "ahead"
    run("build", "SPEC:affine", *VALUES, "--out", str(out))
    assert "1 specialization for" in run("verify", "SPEC:affine", "--out", str(out)).output
    case = root / "affine_case.cc"
    case.write_text(case.read_text() + "// edited\n")
    assert "problem: " in run("verify", "SPEC:affine", "--out", str(out), code=1).output


def test_build_for_several_targets(run: Run, root: Path) -> None:
    targets = ["--target", "x86-64-v2", "--target", "x86-64-v3"]
    if os.uname().machine != "x86_64":
        pytest.skip("the levels named are those of x86-64")
    result = run("build", "SPEC", *VALUES, "--out", str(root / "out"), *targets)
    assert "4 compiled" in result.stdout
    assert "x86-64-v2, x86-64-v3" in result.stdout
    unknown = run("build", "SPEC", *VALUES, "--out", str(root / "out"), "--target", "x86-64-v9", code=1)
    assert "x86-64-v9" in unknown.stderr and "x86-64-v3" in unknown.stderr


def test_build_reports_a_mistake_once_with_its_place_first(run: Run, root: Path) -> None:
    line = replace(root / "affine_case.cc", "DType sum = 0;", "DType sum = nothing;")
    result = run("build", "SPEC", *VALUES, "--out", str(root / "out"), code=1)
    report = result.stderr[result.stderr.index(str(root)) :]
    headline, _, context = report.splitlines()[:3]
    assert re.fullmatch(rf"{re.escape(str(root / 'affine_case.cc'))}:{line}: error: .*'nothing'.*", headline)
    assert context.strip() == f"while compiling {CASE}"
    assert result.output.count(headline) == 1
    assert "Traceback" not in result.output


def test_build_on_a_terminal_shows_a_bar(root: Path) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "dimorph", "build", str(root / "skeleton.py"), *VALUES, "--out", str(root / "out")]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=slave, env=environ) as process:
        os.close(slave)
        shown = b""
        while piece := _read(master):
            shown += piece
    os.close(master)
    assert process.returncode == 0
    assert re.search(rb"2/2", shown) and re.search(rb"\d:\d\d:\d\d", shown) and b"affine case" in shown


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # raised by Linux when the other end of a terminal is closed
        return b""


# --- cache ---


def test_cache_path(run: Run, store: Path) -> None:
    assert run("cache", "path").stdout == f"{store}\n"


def test_cache_list(run: Run, filled: Store) -> None:
    shown = run("cache", "list").stdout
    assert shown.count("dtype=float32, head_dim=128") == 3
    assert re.search(
        r"affine +case +dtype=float32, head_dim=128 +x86-64-v3 +g\+\+ 12\.2\.0 +0{12} +1\.0 kB +20\d\d-", shown
    )
    assert "3 artifacts, " in shown


def test_cache_list_of_nothing(run: Run) -> None:
    assert "0 artifacts, 0 B" in run("cache", "list").stdout


def test_cache_verify_finds_what_is_corrupt(run: Run, filled: Store) -> None:
    assert "3 artifacts, 0 broken" in run("cache", "verify").stdout
    file = next(filled.root.rglob("case.so"))
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1])
    shown = run("cache", "verify", code=1).stdout
    assert "3 artifacts, 1 broken" in shown
    assert re.search(
        rf"^corrupt, rebuilt when it is next needed: {re.escape(str(file))}: expected 1000 bytes", shown, re.M
    )


def test_cache_prune_by_size(run: Run, filled: Store) -> None:
    size = filled.size()
    shown = run("cache", "prune", "--max-size", f"{size - 1}").stdout
    assert "removed 1 artifact (" in shown and len(list(filled.entries())) == 2
    assert "removed 0 artifacts" in run("cache", "prune", "--max-size", "1GB").stdout
    assert "removed 2 artifacts" in run("cache", "prune", "--max-size", "0").stdout
    assert list(filled.entries()) == []


def test_cache_prune_by_age(run: Run, filled: Store) -> None:
    old = next(path.parent for path in sorted(filled.root.rglob("meta.json")))
    os.utime(old, (0, 0))
    assert "removed 1 artifact (" in run("cache", "prune", "--max-age", "30d").stdout
    assert not old.exists() and len(list(filled.entries())) == 2


# --- ide and demo ---


def test_ide_writes_where_it_is_told(run: Run, root: Path, tmp_path: Path) -> None:
    shown = run("ide", "SPEC", "--dir", str(root)).stdout
    assert [Path(line).name for line in shown.splitlines()[:3]] == ["affine.cc", "affine_case.cc", "scale.h"]
    assert f"affine: {root / 'compile_commands.json'}" in shown
    elsewhere = run("ide", "SPEC", *VALUES, "--dir", str(tmp_path / "elsewhere"))
    assert f"--compile-commands-dir={tmp_path / 'elsewhere'}" in elsewhere.stderr


@pytest.mark.parametrize("code", [0, 1])
def test_demo_passes_its_status_on(run: Run, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr("dimorph.demo.run", lambda console: console.print("shown") or code)
    assert run("demo", code=code).stdout == "shown\n"


def test_demo_without_its_packages_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("dimorph.demo")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    result = run("demo", code=1)
    assert "pip install 'dimorph[demo]'" in result.stderr
