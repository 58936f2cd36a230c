"""Names that a shared object takes from others, and other names for them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dimorph.errors import LoadError
from dimorph.toolchain.elf_names import rename_undefined, undefined

SOURCE = """
extern int TAKEN_one(void), TAKEN_two(void), NOT_TAKEN_three(void);
int TAKEN_defined(void) { return TAKEN_one() + TAKEN_two() + NOT_TAKEN_three(); }
const char* text = "TAKEN_in_a_text";
"""


@pytest.fixture(params=["gcc", "sysv"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A shared object, with either kind of hash table."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    (tmp_path / "object.c").write_text(SOURCE)
    style = ["-Wl,--hash-style=sysv"] if request.param == "sysv" else []
    command = [compiler, "-shared", "-fPIC", *style, tmp_path / "object.c", "-o", tmp_path / "object.so"]
    subprocess.run(command, check=True)
    return tmp_path / "object.so"


def test_only_undefined_names_change(shared: Path, tmp_path: Path) -> None:
    content = shared.read_bytes()
    assert undefined(content, b"TAKEN_") == {"TAKEN_one", "TAKEN_two"}
    changed = rename_undefined(content, b"TAKEN_", b"OTHER_")
    assert undefined(changed, b"TAKEN_") == set()
    assert undefined(changed, b"OTHER_") == {"OTHER_one", "OTHER_two"}
    assert b"TAKEN_in_a_text" in changed and b"TAKEN_defined" in changed and b"NOT_TAKEN_three" in changed
    assert len(changed) == len(content)


def test_the_changed_object_takes_the_other_functions(shared: Path, tmp_path: Path) -> None:
    shared.write_bytes(rename_undefined(shared.read_bytes(), b"TAKEN_", b"OTHER_"))
    (tmp_path / "main.c").write_text(
        "int OTHER_one(void) { return 1; }\nint OTHER_two(void) { return 20; }\n"
        "int NOT_TAKEN_three(void) { return 300; }\n"
        "int TAKEN_defined(void);\nint main(void) { return TAKEN_defined() != 321; }\n"
    )
    command = ["cc", "main.c", "-rdynamic", "object.so", f"-Wl,-rpath,{tmp_path}", "-o", "main"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 0


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(LoadError, match="expected a 64-bit little-endian shared object, got b'no obj'"):
        undefined(b"no object", b"TAKEN_")
