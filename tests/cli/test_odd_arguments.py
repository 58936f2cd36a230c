"""Every argument and option of every command, given odd values: a plain sentence and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dimorph.cli.commands import dimorph

GOOD = {"spec": "skeleton.py", "values": "dtype=float32", "--out": "out", "--max-size": "1GB", "--max-age": "30d"}
PATHS = (
    "",
    "..",
    "/",
    ".",
    "~",
    "~nobody-of-this-name/x",
    "/dev/null",
    "skeleton.py",
    "...",
    ".a",
    "a..b",
    ":",
    "..:k",
)
TEXTS = ("nan", "-1", "inf", "--", "%s", "$HOME", "*", "=", "a=", "=a", "a=,", "[", "\n", "a" * 5000, "../" * 2000)
AMOUNTS = ("-1d", "1e400GB", "99999999999999d", "9" * 400 + "d", "9" * 5000 + "GB", "0.d", "d", "GB", "1 furlong")
BYTES = (os.fsdecode(b"\xff"), os.fsdecode(b"caf\xe9.py"))
# Commands that use none of their arguments, or do not end.
LEFT_OUT = {"demo", "doctor"}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif name not in LEFT_OUT:
            yield (*path, name), command


def lines() -> Iterator[tuple[str, list[str]]]:
    """Yield, for each parameter of each command, its name and a command line with `ODD` in its place."""
    for path, command in commands(dimorph):
        # Options that take no value have none that could be odd.
        params = [param for param in command.params if not getattr(param, "is_flag", False)]
        params = [param for param in params if not getattr(param, "count", False)]
        keys = [param.opts[0] for param in params]
        for odd in keys:
            words = list(path)
            for param, key in zip(params, keys, strict=True):
                given = "ODD" if key == odd else GOOD.get(key, "")
                # A build needs one of two options.
                if isinstance(param, click.Option) and (key in (odd, "--out") or param.required):
                    words += [key, given]
                elif isinstance(param, click.Argument) and key in (odd, "spec"):
                    words.append(given)
            yield f"{' '.join(path)} {odd}", words


LINES = dict(lines())


def test_every_command_with_arguments_is_tried() -> None:
    assert {"verify --out", "build spec", "build --arch", "explain --against", "ide --dir", "header values"} <= set(
        LINES
    )
    assert {"cache prune --max-size", "cache prune --max-age", "explain --policy", "build --target"} <= set(LINES)


@pytest.fixture
def inside(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the skeleton, as working directory, two levels below the test's own, and as home."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return root


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("name", LINES)
def test_an_odd_value_ends_in_a_sentence(name: str) -> None:
    # A directory of any name is right, and a build into each of them would take long.
    texts = () if name in ("build --out", "build --cmake", "ide --dir") else (*TEXTS, *AMOUNTS)
    wrong = []
    for odd in (*PATHS, *texts):
        if name in ("ide --dir", "build --cmake") and odd in ("/", "..", "."):
            continue  # right, too
        result = CliRunner().invoke(dimorph, [word.replace("ODD", odd) for word in LINES[name]])
        error = result.exception
        if (error and not isinstance(error, SystemExit)) or result.exit_code not in (0, 1, 2):
            wrong.append(f"{odd[:40]!r}: {error!r}")
        if result.exit_code and not result.output.strip():
            wrong.append(f"{odd[:40]!r}: nothing is said")
    assert not wrong


@pytest.mark.parametrize("name", [name for name in LINES if name.startswith("cache prune")])
@pytest.mark.parametrize("odd", AMOUNTS)
def test_an_odd_amount_is_wrong_usage(name: str, odd: str) -> None:
    result = CliRunner().invoke(dimorph, [word.replace("ODD", odd) for word in LINES[name]])
    assert result.exit_code == 2, odd
    assert "expected a" in result.output
    assert "9" * 50 not in result.output


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("odd", ["", "~nobody-of-this-name/x", "skeleton.py", "/dev/null"])
@pytest.mark.parametrize("name", [name for name in LINES if name.endswith(("--out", "--cmake", "--dir"))])
def test_what_is_no_directory_is_wrong_usage(name: str, odd: str) -> None:
    result = CliRunner().invoke(dimorph, [word.replace("ODD", odd) for word in LINES[name]])
    assert result.exit_code == 2, result.output
    assert "Invalid value for '--" in result.output


def test_a_home_is_not_a_directory_named_tilde(inside: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(dimorph, ["build", "skeleton.py", "dtype=float32", "head_dim=64", "--out", "~/ahead"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "home" / "ahead" / "manifest.json").is_file()
    assert not (inside / "~").exists()


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("odd", BYTES)
def test_values_of_any_bytes(odd: str) -> None:
    for words in (
        ["build", odd, "--out", "out"],
        ["explain", "skeleton.py", odd],
        ["ide", "skeleton.py", "--dir", odd],
    ):
        command = [sys.executable, "-m", "dimorph", *words]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode in (0, 1, 2), words
        assert b"Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["DIMORPH_JOBS", "DIMORPH_NUM_THREADS", "DIMORPH_STORE_AGE", "DIMORPH_STORE_SIZE"])
@pytest.mark.parametrize("text", ["99999999999999999999999d", "9" * 5000, "-1", "nan"])
def test_an_odd_setting_is_named(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    result = CliRunner().invoke(dimorph, ["cache", "path"])
    assert result.exit_code == 1
    assert result.output.startswith(f"{name}: expected ")
    assert len(result.output) < 200
