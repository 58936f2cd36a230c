"""Every fenced block of every page is run, or stands word for word in a file that a test runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dimorph as dm
from dimorph.declare.axis import Axis
from support.pages import DOCS, ROOT, Block, blocks, pages, prose
from support.paths import REPOSITORY
from support.reader import Reader
from support.skeletons import declared

# Page -> the languages of its blocks that a test runs or reads: the first with the file below, the others elsewhere.
RUN = {
    "README.md": {"sh", "text"},  # test_pages.py, test_dev.py
    "docs/tutorial.md": {"sh", "text", "diff"},  # test_tutorial.py
    "docs/guides/kernels.md": {"sh"},  # here
    "docs/guides/cpp_programs.md": {"sh"},  # here
    "docs/guides/deployment.md": {"sh", "toml"},  # here, test_reference.py
    "docs/guides/ship.md": {"sh"},  # here
    "docs/guides/fleets.md": {"sh"},  # here
}
QUOTED = {"python", "cpp", "rust", "cmake"}  # test_pages.py


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_every_block_is_of_a_kind_that_tests_run(page: Path) -> None:
    known = QUOTED | RUN.get(_name(page), set())
    others = [f"{_name(page)}:{block.line}: {block.language}" for block in blocks(page)]
    others = [line for line in others if not line.endswith("}") and line.rpartition(" ")[2] not in known]
    assert others == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("guide", "least"), [("deployment", 5), ("fleets", 5), ("cpp_programs", 1), ("kernels", 1), ("ship", 1)]
)
def test_commands_of_a_guide_run_in_their_order(guide: str, least: int, tmp_path: Path) -> None:
    for package in ("cryptography", "cyclonedx") if guide == "fleets" else ():
        pytest.importorskip(package, reason=f"{package}, of an extra, is not installed")
    reader = Reader(tmp_path)
    # What the pages suppose: a package and a file that declare the kernel of the skeleton.
    reader.run("cp -r examples/skeleton/. . && cp skeleton.py kernels.py")
    reader.run("cp -r examples/skeleton mypackage && mv mypackage/skeleton.py mypackage/kernels.py")
    reader.run("touch mypackage/__init__.py")
    shells = [block for block in blocks(DOCS / "guides" / f"{guide}.md") if block.language == "sh"]
    assert len(shells) >= least
    for block in shells:
        status, output = reader.run(block.text)
        assert status == 0, f"{guide}.md:{block.line}: exit status {status}\n{output}"


def test_parts_of_a_set_are_reused_by_the_whole(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.run("cp -r examples/skeleton/. .")
    shells = [block for block in blocks(DOCS / "guides" / "deployment.md") if block.language == "sh"]
    parts, whole = _of_several_machines(shells)
    compiled = 0
    for number, line in enumerate(parts.text.splitlines()):
        status, output = reader.run(f"DIMORPH_STORE=store-{number} {line}")  # each on a machine of its own
        found = re.search(r"affine: (\d) compiled, 0 reused", output)
        assert status == 0 and found, output
        compiled += int(found[1])
    status, output = reader.run(f"export DIMORPH_STORE=store\n{whole.text}")
    assert status == 0 and f"affine: 0 compiled, {compiled} reused" in output, output


def _of_several_machines(shells: list[Block]) -> tuple[Block, Block]:
    """Return the block that builds parts, and the block that joins them."""
    (at,) = (at for at, block in enumerate(shells) if "--shard" in block.text)
    return shells[at], shells[at + 1]


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_jobs_on_pages_are_jobs_of_the_script(page: Path) -> None:
    jobs = set(re.findall(r"^    \./dev (\w+)", (ROOT / "dev").read_text("utf-8"), re.MULTILINE))
    assert len(jobs) == 6
    named = re.findall(r"\./dev (\w+)", page.read_text("utf-8"))
    assert set(named) <= jobs


def test_rows_of_the_table_of_axes_declare_what_they_say() -> None:
    text = prose(DOCS / "guides" / "kernels.md")
    variants = {"Scale": declared(REPOSITORY / "examples" / "skeleton").axes[-1].values[0]}
    rows = re.findall(r"^\| `(dm\.\w+_axis\(.*?\))` \| ([^|]+) \|", text, re.MULTILINE)
    assert len(rows) == 6
    for call, binds in rows:
        axis = eval(call, {"dm": dm, **variants})
        assert isinstance(axis, Axis)
        lines = "\n".join(axis.constant(axis.values[0]))
        for code in re.findall(r"`([^`]+)`", binds):
            assert code in lines, f"{call} gives {lines}"
