"""The identity of a compiler: the files that change it, and the cost of asking for it again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dimorph.errors import ToolchainError
from dimorph.settings import Settings
from dimorph.toolchain import host, identity, process

_SCRIPT = """#!/bin/sh
echo "$*" >> "$(dirname "$0")/calls"
case "$1" in
  -print-prog-name=cc1plus) echo "$(dirname "$0")/cc1plus" ;;
  -print-prog-name=*) echo "${1#*=}" ;;
  -M) echo "null.o: /dev/null \\\\"; echo "  $(dirname "$0")/version.h" ;;
  --version) echo "fake++ 1.0"; echo "no warranty" ;;
  *) exit 1 ;;
esac
"""


class Fake:
    """A compiler that answers questions and counts them."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.program = directory / "fake-g++"
        self.put("fake-g++", _SCRIPT)
        self.put("cc1plus", "#!/bin/sh\n# backend 1\n")
        self.put("version.h", "#define VERSION 1\n")

    def put(self, name: str, text: str) -> None:
        """Replace a file as package managers do: write a new one and rename it over the old one."""
        new = self.program.parent / "new"
        new.write_text(text)
        new.chmod(0o755)
        new.replace(self.program.parent / name)

    def toolchain(self) -> host.HostCompiler:
        return host.find(Settings(store=Path("unused"), cxx=str(self.program), path=os.environ["PATH"]))

    def identify(self, memo_dir: Path | None) -> str:
        return self.toolchain().identity(memo_dir).id

    def calls(self) -> int:
        return len((self.program.parent / "calls").read_text().splitlines())


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path / "compiler")


def test_asking_again_starts_no_process(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = tmp_path / "store" / "toolchains"
    first = fake.toolchain().identity(memo)
    assert first.description == "fake++ 1.0"
    assert len(first.id) == 16
    assert int(first.id, 16) >= 0
    asked = fake.calls()
    assert asked > 0

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(process, "run", refuse)
    assert fake.toolchain().identity(memo) == first
    assert fake.calls() == asked


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fake-g++", _SCRIPT + "# another program\n"),
        ("cc1plus", "#!/bin/sh\n# backend 2\n"),
        ("version.h", "#define VERSION 2\n"),
    ],
)
def test_a_part_replaced_in_place_changes_it(fake: Fake, tmp_path: Path, name: str, text: str) -> None:
    memo = tmp_path / "memo"
    before = fake.identify(memo)
    old = (fake.program.parent / name).read_text()
    fake.put(name, text)
    assert fake.identify(memo) != before
    fake.put(name, old)
    assert fake.identify(memo) == before


def test_a_link_switched_to_another_compiler_changes_it(fake: Fake, tmp_path: Path) -> None:
    other = Fake(tmp_path / "other")
    other.put("cc1plus", "#!/bin/sh\n# backend 2\n")
    link = tmp_path / "link-g++"
    found = []
    for compiler in (fake, other):
        # The scripts look for their parts in the directory of the path that they are called by.
        wrapper = tmp_path / compiler.program.parent.name / "wrapper"
        wrapper.write_text(f'#!/bin/sh\nexec "{compiler.program}" "$@"\n')
        wrapper.chmod(0o755)
        link.unlink(missing_ok=True)
        link.symlink_to(wrapper)
        settings = Settings(store=Path("unused"), cxx=str(link), path=os.environ["PATH"])
        found.append(host.find(settings).identity(tmp_path / "memo").id)
    assert found[0] != found[1]


def test_an_equal_compiler_elsewhere_is_the_same(fake: Fake, tmp_path: Path) -> None:
    copy = Fake(tmp_path / "elsewhere")
    assert copy.identify(None) == fake.identify(None)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b'{"format": 1}',
        b'{"format": 1, "id": "0123456789abcdef", "description": "x", "files": []}',
        b'{"format": 1, "id": "0123456789abcdef", "description": "x", "files": [[]]}',
        b'{"format": 1, "id": "0123456789abcdef", "description": "x", "files": [["\\u0000", 1, 1, 1]]}',
        b'{"format": 1, "id": "0123456789abcdef", "description": "x", "files": [["/no/such", 1, 1, 1]]}',
    ],
)
def test_a_damaged_memo_is_made_anew(fake: Fake, tmp_path: Path, damage: bytes) -> None:
    memo_dir = tmp_path / "memo"
    right = fake.identify(memo_dir)
    (memo,) = memo_dir.iterdir()
    memo.write_bytes(damage)
    assert fake.identify(memo_dir) == right
    assert json.loads(memo.read_bytes())["id"] == right


@pytest.mark.parametrize(("field", "value"), [("id", "../../../etc"), ("id", 7), ("format", 0)])
def test_a_memo_that_says_something_else_is_made_anew(fake: Fake, tmp_path: Path, field: str, value: object) -> None:
    memo_dir = tmp_path / "memo"
    right = fake.identify(memo_dir)
    (memo,) = memo_dir.iterdir()
    memo.write_text(json.dumps({**json.loads(memo.read_bytes()), field: value}))
    assert fake.identify(memo_dir) == right


def test_without_a_place_to_keep_it_it_is_still_found(fake: Fake, tmp_path: Path) -> None:
    right = fake.identify(tmp_path / "memo")
    assert fake.identify(None) == right
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert fake.identify(in_the_way / "memo") == right


def test_memo_directory_is_private_and_holds_nothing_else(fake: Fake, tmp_path: Path) -> None:
    memo_dir = tmp_path / "store" / "toolchains"
    old = os.umask(0)
    try:
        fake.identify(memo_dir)
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in (memo_dir, memo_dir.parent)} == {0o700}
    assert [path.suffix for path in memo_dir.iterdir()] == [".json"]


def test_many_at_once_agree(fake: Fake, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: fake.identify(tmp_path / "memo"), range(16)))
    assert found == {fake.identify(None)}
    assert len(list((tmp_path / "memo").iterdir())) == 1


def test_a_program_without_its_compiler_proper_is_an_error(fake: Fake) -> None:
    fake.put("fake-g++", _SCRIPT.replace('echo "$(dirname "$0")/cc1plus"', "echo cc1plus"))
    with pytest.raises(ToolchainError, match=r"fake-g\+\+ finds no C\+\+ compiler proper \(cc1plus\)"):
        fake.identify(None)


@pytest.mark.parametrize(
    ("script", "expected"), [("echo broken; exit 3", r"failed \(3\): broken"), ("kill -SEGV $$", "SIGSEGV")]
)
def test_a_program_that_does_not_work_is_an_error(fake: Fake, script: str, expected: str) -> None:
    fake.put("fake-g++", f"#!/bin/sh\n{script}\n")
    with pytest.raises(ToolchainError, match=expected):
        fake.identify(None)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("echo something else", "printed no list of headers"), ("echo 'null.o: /no/such.h'", "no list of headers")],
)
def test_an_answer_that_makes_no_sense_is_an_error(fake: Fake, rule: str, expected: str) -> None:
    fake.put("fake-g++", _SCRIPT.replace("  -M) ", f"  -M) {rule};; unused) "))
    with pytest.raises(ToolchainError, match=expected):
        fake.identify(None)


def test_a_part_that_cannot_be_read_is_an_error(fake: Fake) -> None:
    (fake.program.parent / "cc1plus").unlink()
    fake.put("fake-g++", _SCRIPT.replace('echo "$(dirname "$0")/cc1plus"', f"echo {fake.program.parent}"))
    with pytest.raises(ToolchainError, match=r"finds no C\+\+ compiler proper|cannot be read"):
        fake.identify(None)


def test_variables_count_where_they_can_change_what_is_made(fake: Fake, tmp_path: Path) -> None:
    def identify(*variables: tuple[str, str], memo: Path | None = None) -> str:
        return fake.toolchain()._replace(variables=variables).identity(memo).id

    plain = identify()
    assert identify(("SPACK_TARGET_ARGS", "-O1")) not in (plain, identify(("SPACK_TARGET_ARGS", "-O2")))
    assert identify(("NIX_LDFLAGS", "")) != plain
    for harmless in ("LD_LIBRARY_PATH", "LM_LICENSE_FILE", "INTEL_LICENSE_FILE", "HOME"):
        assert identify((harmless, "/somewhere")) == plain
    # What one compiler gets is not remembered for the other.
    memo = tmp_path / "memo"
    assert identify(memo=memo) != identify(("CPATH", "/x"), memo=memo) != identify(("CPATH", "/y"), memo=memo)


def test_a_compiler_that_needs_a_variable_gets_it(fake: Fake) -> None:
    fake.put("fake-g++", _SCRIPT.replace("#!/bin/sh", '#!/bin/sh\n[ "$LICENSE_FILE" = here ] || { echo no; exit 9; }'))
    with pytest.raises(ToolchainError, match=r"failed \(9\): no"):
        fake.identify(None)
    assert fake.toolchain()._replace(variables=(("LICENSE_FILE", "here"),)).identity(None).id


def test_every_program_of_a_command_counts(fake: Fake, tmp_path: Path) -> None:
    """Of `ccache g++` the first starts the second, which decides what is made."""
    launcher = tmp_path / "launcher"
    launcher.write_text('#!/bin/sh\nexec "$@"\n')
    launcher.chmod(0o755)
    both = host.find(Settings(store=Path("unused"), cxx=f"{launcher} {fake.program}", path=os.environ["PATH"]))
    before = both.identity(None)
    assert before.description == "fake++ 1.0"
    fake.put("fake-g++", _SCRIPT + "# another program\n")
    assert both.identity(None).id != before.id


def test_the_files_of_a_compiler_lie_below_any_path(tmp_path: Path) -> None:
    fake = Fake(Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9")))
    fake.put("fake-g++", _SCRIPT.replace("fake++ 1.0", "$(printf 'fake\\377++ 1.0')"))
    found = fake.toolchain().identity(tmp_path / "memo")
    assert found.description == "fake\N{REPLACEMENT CHARACTER}++ 1.0"
    assert found == fake.toolchain().identity(tmp_path / "memo")


def _stamped(memo_dir: Path) -> Sequence[str]:
    (memo,) = memo_dir.iterdir()
    return [stamp[0] for stamp in json.loads(memo.read_bytes())["files"]]


@pytest.mark.parametrize(
    ("name", "word", "parts"),
    [("g++", "g++", {"g++", "cc1plus", "as", "ld", "features.h"}), ("clang++", "clang", {"clang++", "features.h"})],
)
def test_a_real_compiler(tmp_path: Path, name: str, word: str, parts: set[str]) -> None:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    toolchain = host.find(Settings(store=Path("unused"), cxx=program, path=os.environ["PATH"]))
    found = toolchain.identity(tmp_path / "memo")
    assert word in found.description
    assert any(character.isdigit() for character in found.description)
    assert parts <= {Path(file).name for file in _stamped(tmp_path / "memo")}
    assert toolchain.identity(tmp_path / "memo") == found == toolchain.identity(None)


def test_compilers_differ(fake: Fake) -> None:
    programs = [path for name in ("g++", "clang++") if (path := shutil.which(name))]
    if not programs:
        pytest.skip("neither g++ nor clang++ is installed")
    settings = [Settings(store=Path("unused"), cxx=program, path=os.environ["PATH"]) for program in programs]
    found = {fake.identify(None), *(host.find(each).identity(None).id for each in settings)}
    assert len(found) == 1 + len(programs)


def test_of_a_large_library_enough_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "library.so"
    content = bytearray(os.urandom(1 << 20)) * 9
    file.write_bytes(content)
    monkeypatch.setattr(identity, "_LARGE", 1 << 20)
    before = identity._digest(str(file))
    assert identity._digest(str(file)) == before
    file.write_bytes(content + b"x")
    assert identity._digest(str(file)) != before, "another size"
    content[4 << 20] ^= 1  # within a block that is hashed
    file.write_bytes(content)
    assert identity._digest(str(file)) != before
