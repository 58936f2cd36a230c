"""The reference is complete: the site builds without warnings, and has every public name, setting and command."""

from __future__ import annotations

import html
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext, suppress
from dataclasses import fields
from pathlib import Path

import click
import pytest

import dimorph as dm
from dimorph import attention, errors, settings, wheel
from dimorph.cli.settings_texts import documentation
from support.pages import DOCS, ROOT, blocks, pages, prose

INCLUDE = Path(dm.__file__).parent / "include" / "dimorph"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `./dev docs` builds it."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return out


def _page(site: Path, name: str) -> str:
    return (site / "reference" / f"{name}.html").read_text("utf-8")


def _text(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = _page(site, "python")
    documented = set(re.findall(r'id="(dimorph\.[\w.]+)"', page))
    public = {f"dimorph.{name}" for name in dm.__all__} | {f"dimorph.attention.{name}" for name in attention.__all__}
    assert public - documented == set()


def test_every_variant_has_words_of_its_own(site: Path) -> None:
    text = re.sub(r"\s+", " ", _text(_page(site, "python")))
    assert "sigmoid(scale q k^T + bias) v, not normalised" in text
    assert text.count("A functor struct that plugs into") == 1


def test_every_exception_is_in_the_reference(site: Path) -> None:
    raised = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    private = {"Gone"}  # callers catch it as a LoadError
    assert raised - private <= {name for name in dm.__all__ if f'id="dimorph.{name}"' in _page(site, "python")}


def test_every_setting_is_in_the_reference_with_its_words(site: Path) -> None:
    text = re.sub(r"\s+", " ", _text(_page(site, "settings")))
    words = documentation()
    assert list(words) == [field.name for field in fields(dm.Settings)], "a field has no text under it"
    for name, meaning in words.items():
        assert settings.variable(name) in text
        assert meaning.replace("`", "") in text


def _command_line() -> click.Group:
    """Return the command that the page documents, by the name that the page gives."""
    module, _, name = re.search(r"click:: (\S+)", (DOCS / "reference" / "cli.md").read_text())[1].partition(":")
    return getattr(importlib.import_module(module), name)


def _commands(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    inner = command.commands.items() if isinstance(command, click.Group) else ()
    return [(path, command), *(found for name, one in inner for found in _commands(one, f"{path} {name}"))]


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    text = re.sub(r"\s+", " ", _text(_page(site, "cli")))
    for path, command in _commands(_command_line(), "dimorph"):
        assert path in text
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1] in text, f"{path} {parameter.opts[-1]}"


def test_names_of_the_cpp_page_are_in_the_headers() -> None:
    headers = "\n".join(path.read_text("utf-8") for path in INCLUDE.glob("*.h"))
    page = (DOCS / "reference" / "cpp.md").read_text("utf-8")
    generated, rest = page.partition("## Generated names")[2].split("## Macros", 1)
    spec = str(ROOT / "examples" / "skeleton" / "skeleton.py")
    command = [sys.executable, "-m", "dimorph", "header", spec, "dtype=float32", "head_dim=64"]
    header = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in re.findall(r"^\| `(\w+)` \|", generated, re.MULTILINE):
        assert re.search(rf"\b{name}\b", header), f"{name} is not in the generated header"
    macros = re.findall(r"^\| `(DIMORPH_\w+)\(", rest, re.MULTILINE)
    names = re.findall(r"^\| `dimorph::(?:cuda::)?(\w+)", rest, re.MULTILINE)
    assert len(macros) >= 6 and len(names) >= 15
    for name in macros:
        assert re.search(rf"^#define {name}\(", headers, re.MULTILINE), f"no header defines {name}"
    for name in names:
        assert re.search(rf"\b{name}\b", headers), f"no header declares {name}"
    for member in re.findall(
        r"`(\w+)(?:<T>)?\([^`)]*\)`", rest.partition("| `dimorph::ConstTensor`")[2].split("\n")[0]
    ):
        assert re.search(rf"\b{member}\(", headers), f"ConstTensor has no {member}()"
    for file in re.findall(r"^\| `dimorph/(\w+\.h)` \|", page, re.MULTILINE):
        assert (INCLUDE / file).is_file()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_on_pages_are_used_rightly(page: Path) -> None:
    lines = "".join(block.text for block in blocks(page) if block.language == "sh").splitlines()
    quoted = re.findall(r"`(dimorph [^`]+)`", prose(page))
    # Words in capitals, brackets and dots stand for something else; `--help` ends a command.
    lines += [line for line in quoted if not re.search(r"\b[A-Z]{4,}\b|[\[\]|]|\.\.\.|--help", line)]
    for line in lines:
        command_line = re.sub(r"^(?:\w+=\S* )+", "", line)
        if not command_line.startswith("dimorph "):
            continue
        words = shlex.split(command_line, comments=True)[1:]
        command: click.Command = _command_line()
        while isinstance(command, click.Group):
            _, command, words = command.resolve_command(click.Context(command), words)
        # A sentence may name a command or an option of it without the arguments.
        with suppress(click.MissingParameter) if line in quoted else nullcontext():
            command.make_context(command.name, words)


def test_table_of_the_build_backend_is_read(tmp_path: Path) -> None:
    (table,) = (block.text for block in blocks(DOCS / "guides" / "deployment.md") if block.language == "toml")
    (tmp_path / "pyproject.toml").write_text(table)
    config = wheel.read_config(tmp_path / "pyproject.toml")
    assert config.kernels == ("mypackage.kernels",)
    assert config.archs == ("sm_80", "sm_90a")
