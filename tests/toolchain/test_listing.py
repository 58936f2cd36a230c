"""The lists of what a compile read, told apart from the compiler's messages."""

from __future__ import annotations

from pathlib import Path

from dimorph.toolchain import listing
from dimorph.toolchain.listing import Listing

SEARCH = """\
ignoring nonexistent directory "/usr/local/include/x86_64-linux-gnu"
ignoring duplicate directory "/usr/include"
  as it is a non-system directory that duplicates a system directory
#include "..." search starts here:
#include <...> search starts here:
 /project
 /usr/include/c++/12
End of search list.
"""


def test_lists_are_taken_out_of_the_messages(tmp_path: Path) -> None:
    library, script = tmp_path / "lib" / "libc.a", tmp_path / "lib" / "libm.so"
    library.parent.mkdir()
    for file in (library, script):
        file.touch()
    work = tmp_path / "work"
    work.mkdir()
    messages = [
        f"{work}/generated/k_config.h:3:1: error: 'X' was not declared in this scope",
        f"{work}/cc1.o: No space left on device",
        f"{library}: In function 'f':",
        "/nowhere/libgone.a",
    ]
    linked = [
        "/usr/bin/ld: mode elf_x86_64",
        f"{work}/cc2.o",
        str(script),
        f"({library})a.o",
        f"-lc ({library})",
        f"{library}(b.o)",
    ]
    mixed = [line for pair in zip(messages, linked, strict=False) for line in pair] + linked[len(messages) :]
    found, rest = listing.read(work, SEARCH + "\n".join(mixed) + "\n")
    assert rest.splitlines() == messages
    searched, missing = ("/project", "/usr/include/c++/12"), ("/usr/local/include/x86_64-linux-gnu",)
    assert found == Listing(None, (), (str(script), str(library)), searched, missing)


def test_the_first_line_of_clangs_list_belongs_to_it(tmp_path: Path) -> None:
    head = "clang -cc1 version 14.0.6 based upon LLVM 14.0.6 default target x86_64-pc-linux-gnu\n"
    found, rest = listing.read(tmp_path, f"{head}{SEARCH}x.cc:1: warning: y\n")
    assert rest == "x.cc:1: warning: y\n"
    assert len(found.searched) == 2


def test_names_in_lists_are_read_as_make_does(tmp_path: Path) -> None:
    (tmp_path / "headers.d").write_bytes(b"x.so: a.cc a\\ b.h \\\n a\\\tb.h c$$d.h e\\#f.h g\xe9h.h\n\nother:\n")
    (tmp_path / "assembled.d").write_text("x.o: /tmp/x.s /blob\n")
    found, _ = listing.read(tmp_path, "")
    assert found.headers == ("a.cc", "a b.h", "a\tb.h", "c$d.h", "e#f.h", "g\udce9h.h")
    assert found.assembled == ("/tmp/x.s", "/blob")
