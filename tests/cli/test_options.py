"""Options that all commands share: -q, -v, --json, completion; and options that would do nothing, which are refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import dimorph as dm
from dimorph import settings
from dimorph.cli.commands import dimorph
from dimorph.declare.reference import Reference
from dimorph.resolve.levels import target_levels
from dimorph.store import use
from dimorph.store.store import Store
from dimorph.store.use import Use
from support.cli import Run
from support.skeletons import replace

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"
VALUES = ("dtype=float32", "head_dim=64")


def _commands(group: click.Group = dimorph, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield " ".join([*path, name]), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


COMMANDS = dict(_commands())
# Commands without a result to put into JSON: groups, the text of a header, a demonstration for people; and one whose
# result has a form of its own.
TEXT_ALONE = {"cache", "record", "header", "demo", "sbom"}


def _run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in its own process, because -q and -v change the log of a process."""
    command, env = [sys.executable, "-m", "dimorph", *words], {**os.environ, **env}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


# --- -q and -v ---


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_options(name: str) -> None:
    options = {option for param in COMMANDS[name].params for option in param.opts}
    assert {"-q", "--quiet", "-v", "--verbose"} <= options
    assert ("--json" in options) == (name not in TEXT_ALONE)


@pytest.mark.parametrize("before", [["-q"], []], ids=["before", "after"])
def test_a_quiet_build_says_nothing(before: list[str], root: Path) -> None:
    after = [] if before else ["--quiet"]
    build = [*before, "build", str(root / "skeleton.py"), *VALUES, "--out", str(root / "out"), *after]
    done = _run(*build)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    replace(root / "affine_case.cc", "DType sum = 0;", "DType sum = nothing;")
    failed = _run(*build)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(str(root / "affine_case.cc"))


def test_a_quiet_check_shows_problems_alone(run: Run, root: Path, filled: Store) -> None:
    run("build", "SPEC", *VALUES, "--out", str(root / "out"))
    assert run("verify", "SPEC", "--out", str(root / "out"), "-q").output == ""
    replace(root / "affine_case.cc", "DType sum = 0;", "DType sum{};")
    shown = run("verify", "SPEC", "--out", str(root / "out"), "-q", code=1).stdout.splitlines()
    assert shown and all(line.startswith("problem: ") for line in shown)
    assert run("cache", "verify", "-q").output == ""
    assert run("cache", "-q", "prune", "--max-size", "0").output == ""
    assert list(filled.entries()) == []


def test_what_was_asked_for_is_shown_quietly_too(run: Run, store: Path) -> None:
    assert run("cache", "path", "-q").stdout == f"{store}\n"
    assert "affine" in run("list", "SPEC", "-q").stdout
    assert run("header", "SPEC", "-q").stdout == run("header", "SPEC").stdout


@pytest.mark.parametrize("words", [["-q", "-v", "doctor"], ["-q", "doctor", "-v"], ["cache", "-v", "list", "-q"]])
def test_quiet_and_verbose_together_are_refused(run: Run, words: list[str]) -> None:
    assert "expected --quiet or --verbose, got both" in run(*words, code=2).stderr


def test_verbose_shows_where_artifacts_come_from_and_twice_the_compilers(root: Path) -> None:
    build = ["build", str(root / "skeleton.py"), *VALUES, "--out", str(root / "out")]
    twice = _run(*build, "-vv").stderr
    assert len(re.findall(r"^compiling affine (?:entry|case) .*: /.* -std=c\+\+17 ", twice, re.M)) == 2
    label = "affine case (dtype=float32, head_dim=64, variant=Scale)"
    assert f"{label}: from {root / 'out'}, " in _run("-v", *build).stderr
    # One before and one after the name are two.
    replace(root / "affine_case.cc", "DType sum = 0;", "DType sum{};")
    assert "compiling affine case" in _run("-v", *build, "-v").stderr
    assert "from " not in _run(*build).stderr


@pytest.mark.parametrize("command", ["explain", "ide"])
def test_the_setting_of_the_log_counts_as_its_option_does(root: Path, command: str) -> None:
    with (root / "skeleton.py").open("a") as stream:
        stream.write('\nimport logging\nlogging.getLogger("dimorph").info("told by the module")\n')
    words = [command, str(root / "skeleton.py"), *VALUES]
    assert "told by the module" in _run(*words, "-v").stderr
    assert "told by the module" in _run(*words, DIMORPH_LOG="info").stderr
    assert "told by the module" not in _run(*words, "-q", DIMORPH_LOG="info").stderr


# --- --json ---


def _keys(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        for key, value in found.items():
            if key != "values":  # its keys are the names of axes
                yield key
                yield from _keys(value)
    elif isinstance(found, list):
        for one in found:
            yield from _keys(one)


JSON = {
    "list": ["list", "SPEC"],
    "new": ["new", "rms"],
    "build": ["build", "SPEC", *VALUES, "--out", "OUT"],
    "build --from": ["build", "--from", "RECORD", "--out", "OUT"],
    "package": ["package", "MANIFEST", "--out", "OUT"],
    "cover": ["cover", "RECORD", "OUT"],
    "record merge": ["record", "merge", "SUM", "RECORD"],
    "verify": ["verify", "SPEC", "--out", "OUT"],
    "explain": ["explain", "SPEC", *VALUES],
    "explain --against": ["explain", "SPEC", *VALUES, "--against", "head_dim=128"],
    "ide": ["ide", "SPEC"],
    "stub": ["stub", "SPEC"],
    "doctor": ["doctor"],
    "cache path": ["cache", "path"],
    "cache list": ["cache", "list"],
    "cache verify": ["cache", "verify"],
    "cache prune": ["cache", "prune", "--max-age", "1d"],
    "cache export": ["cache", "export", "memory://exported"],
}


def _record(root: Path) -> Path:
    """Write a record of use of the skeleton."""
    found = Reference(file=f"{root / 'skeleton.py'}:affine")
    values = {"dtype": ["float32"], "head_dim": ["64"], "variant": ["Scale"]}
    target = target_levels(settings.current())[0].name
    uses = [Use(kind, "affine", found, values, {}, target, [], False, []) for kind in ("entry", "case")]
    use.write(root / "use.json", uses)
    return root / "use.json"


def _manifest(root: Path) -> Path:
    """Write the manifest of a small data package."""
    level = target_levels(settings.current())[0].name
    lines = ['name = "merging"', 'kernels = "dimorph.attention.kernels"', f'targets = ["{level}"]', "[[set]]"]
    (root / "merging.toml").write_text(
        "\n".join([*lines, 'kernels = ["merge_states_cpu"]', 'values.dtype = ["float16"]'])
    )
    return root / "merging.toml"


def test_every_command_with_json_is_tried() -> None:
    assert {name.partition(" --")[0] for name in JSON} == COMMANDS.keys() - TEXT_ALONE


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("name", JSON)
def test_json_is_one_object_with_documented_keys(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(root)
    with (root / "skeleton.py").open("a") as stream:
        stream.write('\nprint("a module that talks when it is imported")\n')
    out = root / "out"
    run("build", "SPEC", *VALUES, "--out", str(out))
    given = {"SPEC": str(root / "skeleton.py"), "OUT": str(out), "SUM": str(root / "sum.json")}
    given |= {"RECORD": str(_record(root)), "MANIFEST": str(_manifest(root))}
    result = CliRunner().invoke(dimorph, [*(given.get(word, word) for word in JSON[name]), "--json"])
    found = json.loads(result.stdout)
    # The machine may have a problem that the doctor tells of.
    assert result.exit_code == (0 if found.get("ok", True) else 1)
    (row,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    artifact = PAGE.read_text().partition("An artifact has ")[2].partition(". Times")[0]
    documented = set(re.findall(r"`(\w+)`", row + artifact)) | {"path", "error", "rebuilt"}
    assert set(_keys(found)) <= documented
    assert set(found) == {key for key in re.findall(r"`(\w+)`", row) if key in found}


def test_json_says_what_the_text_says(run: Run, root: Path) -> None:
    out = str(root / "out")
    built = json.loads(run("build", "SPEC", *VALUES, "--out", out, "--json").stdout)["kernels"]
    assert [(one["kernel"], one["compiled"], len(one["artifacts"])) for one in built] == [("affine", 2, 2)]
    assert json.loads(run("verify", "SPEC", "--out", out, "--json").stdout)["ok"] is True
    (units,) = [json.loads(run("explain", "SPEC", *VALUES, "--json").stdout)["units"]]
    assert [(unit["kind"], unit["key"]) for unit in units] == [
        (one["kind"], one["key"]) for one in built[0]["artifacts"]
    ]
    replace(root / "affine_case.cc", "DType sum = 0;", "DType sum{};")
    found = json.loads(run("verify", "SPEC", "--out", out, "--json", code=1).stdout)
    assert found["ok"] is False and len(found["problems"]) == 1
    missing = json.loads(run("explain", "SPEC", *VALUES, "--policy", "aot", "--json", code=1).stdout)
    assert missing["ok"] is False and [unit["fails"] for unit in missing["units"]] == [False, True]


@pytest.mark.parametrize(
    ("words", "type_", "said"),
    [
        (["list", "nowhere.py"], "DeclarationError", "nowhere.py: there is no such file"),
        (["build", "SPEC", "width=1", "--out", "OUT"], "DeclarationError", "no axis is called 'width'"),
        (["explain", "SPEC", "--against", "zz"], "DimorphError", "zz: expected the directory of an artifact"),
        (["cache", "prune", "--max-size", "1GB"], "DimorphError", "DIMORPH_JOBS: expected"),
    ],
)
def test_an_error_is_json_too(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], type_: str, said: str
) -> None:
    if "JOBS" in said:
        monkeypatch.setenv("DIMORPH_JOBS", "many")
    result = run(*(word.replace("OUT", str(root / "out")) for word in words), "--json", code=1)
    error = json.loads(result.stdout)["error"]
    assert said in error["message"] and error["message"] in result.stderr
    assert error["type"] == type_


@pytest.mark.parametrize("noise", ["os.write(1, b'noise\\n')", "os.system('echo noise')", "print('noise', end='')"])
def test_what_a_module_prints_does_not_mix_with_json(root: Path, noise: str) -> None:
    with (root / "skeleton.py").open("a") as stream:
        stream.write(f"\nimport os\n{noise}\n")
    command = [sys.executable, "-m", "dimorph", "list", str(root / "skeleton.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [one["name"] for one in json.loads(done.stdout)["kernels"]] == ["affine"]
    assert "noise" in done.stderr


@pytest.mark.parametrize(("line", "type_"), [("raise ValueError('odd')", "ValueError"), ("if", "SyntaxError")])
def test_an_error_of_the_module_is_json_too(root: Path, line: str, type_: str) -> None:
    (root / "skeleton.py").write_text(f"{line}\n")
    command = [sys.executable, "-m", "dimorph", "list", str(root / "skeleton.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and json.loads(done.stdout)["error"]["type"] == type_
    assert "skeleton.py" in done.stderr


# --- list ---


def test_list_shows_the_declaration(run: Run, root: Path) -> None:
    shown = run("list", "SPEC").stdout
    line = 1 + (root / "skeleton.py").read_text().partition("affine = dm.Kernel(")[0].count("\n")
    assert shown.startswith(f"affine  {root / 'skeleton.py'}:{line}\n")
    for pattern in (
        r"entry +affine\.cc",
        r"case +affine_case\.cc",
        r"axis dtype +\{float32, float64\}, as DType",
        r"axis head_dim +\{64, 128, 256\}, and others that it accepts, as HEAD_DIM",
        r"variant Scale +\(scale\) in .*scale\.h",
        r"in all +6 specializations",
    ):
        assert re.search(rf"^  {pattern}$", shown, re.M), shown


def test_list_counts_the_combinations_that_exist_and_names_choices(run: Run, root: Path) -> None:
    file = root / "several.py"
    file.write_text(
        "import dimorph as dm\n"
        'one = dm.Kernel(name="one", entry="one.cc")\n'
        'two = dm.Kernel(name="two", entry="a.cc", case=["b.cc"], device=["c.cu"], archs=["sm_80", "sm_90a"],\n'
        '    where=lambda values: values["n"] != 2, axes=[\n'
        '    dm.int_axis("n", "N", [1, 2, 3]),\n'
        '    dm.int_axis("tile", "TILE", [], choose=lambda values: 8 * values["n"])])\n'
    )
    one, two = json.loads(run("list", str(file), "--json").stdout)["kernels"]
    assert (one["name"], one["axes"], one["specializations"]) == ("one", [], 1)
    assert (two["device"], two["archs"], two["specializations"]) == (["c.cu"], ["sm_80", "sm_90a"], 2)
    assert [(axis["name"], axis["values"], axis["chosen"]) for axis in two["axes"]] == [
        ("n", ["1", "2", "3"], False),
        ("tile", [], True),
    ]
    shown = run("list", f"{file}:two").stdout
    assert "one.cc" not in shown and re.search(r"axis tile +a value by choice, as TILE\n", shown)


def test_list_of_an_open_axis_differs_from_a_closed_one() -> None:
    done = json.loads(_run("list", "dimorph.attention.kernels", "--json").stdout)
    axes = {axis["name"]: axis for axis in done["kernels"][0]["axes"]}
    assert axes["head_dims"]["accepts_more"] and not axes["dtype"]["accepts_more"]


# --- Options that would do nothing ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["explain", "SPEC", "--policy", "aot", "--against", "head_dim=64"],
            "expected --policy or --against, got both",
        ),
        (["build", "SPEC", "--out", "OUT", "--arch", "sm_80"], "expected a kernel with device sources, got affine"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(run: Run, root: Path, words: list[str], said: str) -> None:
    result = run(*(word.replace("OUT", str(root / "out")) for word in words), code=2)
    assert said in result.stderr and not (root / "out").exists()


# --- Completion ---


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """An environment with the command on PATH."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "dimorph").write_text(f'#!/bin/sh\nexec {sys.executable} -m dimorph "$@"\n')
    (bin_ / "dimorph").chmod(0o755)
    source = str(Path(dm.__file__).parents[1])
    return {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": source}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ca"], {"cache"}),
        (["cache", ""], {"export", "list", "path", "prune", "verify"}),
        (["explain", "skeleton.py", "--policy", ""], {"auto", "aot", "jit"}),
        (["list", "skel"], {"skeleton.py"}),
        (["build", "skeleton.py", "--out", "sub"], {"subdirectory"}),
    ],
)
def test_bash_completes(program: dict[str, str], root: Path, words: list[str], expected: set[str]) -> None:
    (line,) = re.findall(r"^\| bash .*`(eval .*)` \|$", PAGE.read_text(), re.M)
    (root / "subdirectory").mkdir()
    (root / "subfile").touch()
    # bash calls the function that is registered for the command; `compopt` works inside of such a call only.
    script = (
        f"{line}\ncompopt() {{ kind=$2; }}\n"
        f"COMP_WORDS=(dimorph {' '.join(repr(word) for word in words)}); COMP_CWORD={len(words)}\n"
        'read -ra registered <<< "$(complete -p dimorph)"\n'
        "for ((i = 0; i < ${#registered[@]}; i++)); do\n"
        '  [[ ${registered[i]} == -F ]] && "${registered[i + 1]}" dimorph\n'
        "done\n"
        '[[ $kind == default ]] && COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))\n'
        '[[ $kind == dirnames ]] && COMPREPLY=($(compgen -d -- "${COMP_WORDS[COMP_CWORD]}"))\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], env=program, cwd=root, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_lines_of_other_shells_print_their_scripts(program: dict[str, str], shell: str) -> None:
    (line,) = re.findall(rf"^\| {shell}.*`(?:eval \"\$\()?(_DIMORPH_COMPLETE=\S+ dimorph)", PAGE.read_text(), re.M)
    done = subprocess.run(line, shell=True, env=program, capture_output=True, text=True, check=True)
    assert f"_DIMORPH_COMPLETE={shell}_complete" in done.stdout
